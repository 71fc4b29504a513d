//! What hickory's errors come to.

use std::io;

use bufferevent_core::ResolveFailure;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;

use super::checked::Unusable;

/// What a program can act on.
pub(crate) fn failure(error: &NetError) -> ResolveFailure {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. })) => {
            match response_code {
                ResponseCode::NXDomain => ResolveFailure::NotFound,
                ResponseCode::NoError => ResolveFailure::NoAddress,
                code => of_code(*code),
            }
        }
        NetError::Dns(DnsError::ResponseCode(code)) => of_code(*code),
        NetError::Timeout => ResolveFailure::Timeout,
        NetError::Busy => ResolveFailure::Busy,
        NetError::NoConnections => ResolveFailure::ServerFailed,
        NetError::Io(error) => of_io(error),
        // Broken answers, aliases without an end, answers cut short.
        _ => ResolveFailure::Malformed,
    }
}

fn of_code(code: ResponseCode) -> ResolveFailure {
    match code {
        ResponseCode::Refused => ResolveFailure::Refused,
        _ => ResolveFailure::ServerFailed,
    }
}

fn of_io(error: &io::Error) -> ResolveFailure {
    if let Some(unusable) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        let Unusable { failure, .. } = unusable;
        return *failure;
    }
    match error.kind() {
        io::ErrorKind::TimedOut => ResolveFailure::Timeout,
        // Servers that go away before they answer.
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => ResolveFailure::ServerFailed,
        _ => ResolveFailure::System,
    }
}
