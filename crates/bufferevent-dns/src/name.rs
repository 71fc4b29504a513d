//! From what a user wrote to what may be asked: names as the DNS has them.
//!
//! # Invariants
//! - What comes out is ASCII, in lower case, has labels of 1 to 63 bytes and 253 in all, and no dot at its end unless the user wrote one.
//! - Its last label is no number: such a name is an address that was mistyped, and some systems would take it for one.

use bufferevent_core::resolve::{Family, Question, ResolveError, ResolveFailure};
use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// The longest text that is looked at, in bytes. A name of 253 bytes is shorter in any script.
const MAX_TEXT: usize = 1024;

/// The form of a host name that is asked for, that certificates have and that `connect_hostname` would look up: ASCII, in lower case.
///
/// ```
/// use bufferevent_dns::ascii_host;
/// assert_eq!(ascii_host("BÜCHER.example")?, "xn--bcher-kva.example");
/// assert!(ascii_host("127.0.0.256").is_err(), "no name, and no address either");
/// # Ok::<(), bufferevent_dns::ResolveError>(())
/// ```
///
/// # Errors
/// [`ResolveFailure::BadName`]: it is no host name. An address is none.
///
/// Source: UTS 46, as the URL standard uses it.
pub fn ascii_host(host: &str) -> Result<String, ResolveError> {
    ascii(&Question::new(host, Family::Any))
}

/// The ASCII form of the question's host.
pub(crate) fn ascii(question: &Question) -> Result<String, ResolveError> {
    to_ascii(question.host()).ok_or_else(|| question.failed(ResolveFailure::BadName))
}

pub(crate) fn to_ascii(host: &str) -> Option<String> {
    if host.len() > MAX_TEXT {
        return None;
    }
    let ascii = Uts46::new()
        .to_ascii(
            host.as_bytes(),
            AsciiDenyList::URL,
            Hyphens::Allow,
            DnsLength::VerifyAllowRootDot,
        )
        .ok()?;
    let last = ascii
        .strip_suffix('.')
        .unwrap_or(&ascii)
        .rsplit('.')
        .next()?;
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (!number).then(|| ascii.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_out_as_the_dns_has_them() {
        for (text, ascii) in [
            ("example.org", "example.org"),
            ("Example.ORG.", "example.org."),
            ("localhost", "localhost"),
            ("_sip._tcp.example", "_sip._tcp.example"),
            ("a--b.example", "a--b.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("日本語。jp", "xn--wgv71a119e.jp"),
            ("faß.example", "xn--fa-hia.example"),
            ("1.2.3.4.example", "1.2.3.4.example"),
        ] {
            assert_eq!(to_ascii(text).as_deref(), Some(ascii), "{text}");
        }
        let longest = [
            "a".repeat(63),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(61),
        ]
        .join(".");
        assert_eq!(longest.len(), 253);
        assert_eq!(to_ascii(&longest), Some(longest));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let label = "a".repeat(64);
        let names: Vec<String> = [255, 256, 1024, 1025, 1 << 20]
            .map(|length| "a.".repeat(length)[..length].into())
            .into();
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "[::1",
            "::1]",
            "[::1]",
            "a b",
            "a\0b",
            "\0",
            "a/b",
            "a:80",
            "user@host",
            "%00",
            "127.1",
            "1.2.3.4",
            "1.2.3.4.",
            "0x7f",
            "127.0.0.256",
            "example.1",
            "１２７.0.0.1",
            "xn--a",
            "a\u{202e}b",
            "a\nb",
            &label,
        ]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        {
            let shown: String = text.chars().take(32).collect();
            assert_eq!(to_ascii(text), None, "{shown:?}, {} bytes", text.len());
        }
    }
}
