//! A system that has no io_uring, or forbids it: `bev` says so, with the reason, and goes on without.
//!
//! What a kernel without it and a container's filter answer, a filter of system calls answers here, in a process of its own.

#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

mod support;

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use support::bev;

/// Has `io_uring_setup` answer `errno` in the process that this command starts.
#[expect(unsafe_code, reason = "a filter is installed between fork and exec")]
fn without_rings(command: &mut Command, errno: i32) {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let load_number = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let is_setup = libc::sock_filter {
        jf: 1,
        ..statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            libc::SYS_io_uring_setup as u32,
        )
    };
    let refuse = statement(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_ERRNO | errno as u32,
    );
    let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
    let filter = [load_number, is_setup, refuse, allow];
    let install = move || {
        let mut filter = filter;
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: the calls take numbers, and a program that lives until they return; the kernel copies it.
        let results = unsafe {
            [
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const program,
                ),
            ]
        };
        match results {
            [0, 0] => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: `install` makes two system calls, and neither allocates nor locks: it may run between fork and exec.
    unsafe { command.pre_exec(install) };
}

fn demo(errno: i32) -> (String, String) {
    let mut command = bev(&["demo", "--bytes", "64KiB", "--json", "--backend", "uring"]);
    without_rings(&mut command, errno);
    let output = command.output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{err}");
    (out, err)
}

#[test]
fn a_kernel_without_io_uring_is_told_and_the_default_backend_is_used() {
    let (out, err) = demo(libc::ENOSYS);
    assert!(out.contains(r#""backend":"mio""#), "{out}");
    assert!(err.contains("no backend uring here"), "{err}");
    assert!(err.contains("the kernel has no io_uring"), "{err}");
    assert!(err.contains("using mio"), "{err}");
}

#[test]
fn a_system_that_forbids_io_uring_is_told_with_what_to_look_at() {
    let (out, err) = demo(libc::EPERM);
    assert!(out.contains(r#""backend":"mio""#), "{out}");
    assert!(err.contains("kernel.io_uring_disabled"), "{err}");
    assert!(err.contains("system call filter"), "{err}");
    assert!(err.contains("using mio"), "{err}");
}
