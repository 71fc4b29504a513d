//! Connections to name servers whose answers are looked at before anybody believes them.
//!
//! hickory compares identifier, source and question of what comes by UDP, and the identifier of what comes by TCP. Here the question is
//! compared on both; and an answer that says that the server cannot serve is made a failure of that server, so that the
//! next one is asked, as every stub resolver does.
//!
//! # Invariants
//! - An answer that is passed on is a response, to the question that was asked.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

use bufferevent_core::ResolveFailure;
use futures_util::stream::{Stream, StreamExt as _};
use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle};
use hickory_resolver::proto::op::{DnsRequest, DnsResponse, MessageType, Query, ResponseCode};
use hickory_resolver::{ConnectionProvider, PoolContext};

use super::runtime::{self, Runtime};

/// Makes connections that check what they answer.
#[derive(Clone)]
pub(crate) struct Connections(pub(crate) Runtime);

impl ConnectionProvider for Connections {
    type Conn = Checked;
    type FutureConn = Pin<Box<dyn Future<Output = Result<Checked, NetError>> + Send>>;
    type RuntimeProvider = Runtime;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        cx: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let connection = self.0.new_connection(ip, config, cx)?;
        Ok(Box::pin(async move { connection.await.map(Checked) }))
    }

    fn runtime_provider(&self) -> &Runtime {
        &self.0
    }
}

/// A connection that checks what it answers.
#[derive(Clone)]
pub(crate) struct Checked(DnsExchange<Runtime>);

impl DnsHandle for Checked {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = Runtime;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let asked = request.queries.clone();
        let answers = self.0.send(request);
        Box::pin(answers.map(move |answer| check(&asked, answer).inspect_err(runtime::note)))
    }
}

fn check(asked: &[Query], answer: Result<DnsResponse, NetError>) -> Result<DnsResponse, NetError> {
    let answer = match answer {
        Ok(answer) => answer,
        // The next server may make more sense.
        Err(NetError::Proto(error)) => {
            return Err(Unusable::malformed(error).into());
        }
        Err(error) => return Err(error),
    };
    if answer.metadata.message_type != MessageType::Response {
        return Err(Unusable::malformed("not a response").into());
    }
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        ResponseCode::Refused => return Err(Unusable::of(ResolveFailure::Refused).into()),
        // Some servers leave the question out of these.
        _ => return Err(Unusable::of(ResolveFailure::ServerFailed).into()),
    }
    if answer.queries != asked {
        return Err(Unusable::malformed("the answer to another question").into());
    }
    Ok(answer)
}

/// An answer of which no use can be made: a failure of the server that gave it.
#[derive(Debug)]
pub(crate) struct Unusable {
    pub(crate) failure: ResolveFailure,
    why: Option<Box<dyn Error + Send + Sync>>,
}

impl Unusable {
    fn of(failure: ResolveFailure) -> Self {
        Self { failure, why: None }
    }

    fn malformed(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            failure: ResolveFailure::Malformed,
            why: Some(why.into()),
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.failure, &self.why) {
            (_, Some(why)) => write!(f, "a name server's answer cannot be used: {why}"),
            (ResolveFailure::Refused, None) => f.write_str("a name server refused"),
            (_, None) => f.write_str("a name server failed"),
        }
    }
}

impl Error for Unusable {}

impl From<Unusable> for NetError {
    /// As the kind of error for which hickory turns to another server.
    fn from(unusable: Unusable) -> Self {
        io::Error::other(unusable).into()
    }
}
