//! Whether this kernel can do it, and what to say where it cannot.
//!
//! # Invariants
//! - Every answer names what was refused, by whom, and what to do about it.

use std::io;

use io_uring::{IoUring, Probe, opcode};

use crate::unavailable::Unavailable;

/// What all refusals but a few have in common.
const TOO_OLD: &str = "Linux 6.1 or later is needed";

/// The kernel made no ring.
pub(super) fn setup(source: io::Error) -> Unavailable {
    let hint = match source.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel has no io_uring",
        Some(libc::EPERM | libc::EACCES) => {
            "it is forbidden here: see kernel.io_uring_disabled, and the container's system call filter"
        }
        Some(libc::EINVAL) => TOO_OLD,
        Some(libc::ENOMEM) => "the limit of locked memory is too low: see `ulimit -l`",
        Some(libc::EMFILE | libc::ENFILE) => "no descriptors are left: see `ulimit -n`",
        _ => "no ring could be made",
    };
    Unavailable::new("io_uring_setup was refused", hint, Some(source))
}

pub(super) fn refused(what: &'static str, source: io::Error) -> Unavailable {
    Unavailable::new(what, TOO_OLD, Some(source))
}

fn lacks(what: &'static str) -> Unavailable {
    Unavailable::new(what, TOO_OLD, None)
}

/// Asks the kernel for all that the driver uses and cannot see from the set-up alone.
pub(super) fn check(ring: &IoUring) -> Result<(), Unavailable> {
    let features = ring.params();
    if !(features.is_feature_nodrop() && features.is_feature_submit_stable()) {
        return Err(lacks("completions could be lost"));
    }
    if !features.is_feature_ext_arg() {
        return Err(lacks("a wait cannot have a time-out"));
    }
    if !features.is_feature_skip_cqe_on_success() {
        return Err(lacks("successes cannot go without a completion"));
    }
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|source| refused("the kernel does not tell what it can do", source))?;
    let needed = [
        opcode::RecvMulti::CODE,
        opcode::Send::CODE,
        opcode::SendMsg::CODE,
        opcode::AcceptMulti::CODE,
        opcode::Connect::CODE,
        opcode::AsyncCancel2::CODE,
        opcode::PollAdd::CODE,
        opcode::PollRemove::CODE,
    ];
    if needed.iter().any(|&code| !probe.is_supported(code)) {
        return Err(lacks("an operation of sockets is missing"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        for (code, words) in [
            (libc::ENOSYS, "the kernel has no io_uring"),
            (libc::EPERM, "kernel.io_uring_disabled"),
            (libc::EACCES, "system call filter"),
            (libc::EINVAL, "Linux 6.1"),
            (libc::ENOMEM, "ulimit -l"),
            (libc::EMFILE, "ulimit -n"),
            (libc::ENFILE, "ulimit -n"),
            (libc::EIO, "no ring could be made"),
        ] {
            let refusal = setup(io::Error::from_raw_os_error(code));
            assert!(refusal.to_string().contains(words), "{refusal}");
            let source = refusal.source().expect("what the system said");
            assert!(source.to_string().contains(&code.to_string()), "{source}");
            let kind = io::Error::from(refusal).kind();
            let forbidden = matches!(code, libc::EPERM | libc::EACCES);
            assert_eq!(kind == io::ErrorKind::PermissionDenied, forbidden);
        }
    }
}
