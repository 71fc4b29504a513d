//! Questions asked without a socket, and name servers that answer as a test likes.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(unused_imports, reason = "each test program uses a part of it")]

mod asking;
#[path = "../../examples/dns_server.rs"]
pub(crate) mod dns_server;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) use asking::{Asked, PATIENCE, ask, on_backends, resolve, until};
use bufferevent_dns::{Dns, DnsBuilder};
use dns_server::{Back, Over, Server, serve};
use evreactor::LoopHandle;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// How long a server may take, where one says nothing: short, and long enough for a machine that is busy.
pub(crate) const SHORT: Duration = Duration::from_millis(150);

pub(crate) fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

pub(crate) fn v6(last: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()
}

pub(crate) fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

/// A question that a server was asked.
#[derive(Clone)]
pub(crate) struct Query {
    pub(crate) message: Message,
    pub(crate) over: Over,
}

impl Query {
    pub(crate) fn name(&self) -> String {
        self.message.queries[0].name().to_ascii()
    }

    pub(crate) fn kind(&self) -> RecordType {
        self.message.queries[0].query_type()
    }

    /// The beginning of an answer to it.
    pub(crate) fn response(&self) -> Message {
        let mut answer = Message::response(self.message.metadata.id, self.message.metadata.op_code);
        answer.add_queries(self.message.queries.clone());
        answer
    }

    /// An answer that has these addresses, of those that were asked for.
    pub(crate) fn addresses(&self, ttl: u32, addresses: &[IpAddr]) -> Message {
        let mut answer = self.response();
        let owner = self.message.queries[0].name().clone();
        for address in addresses {
            if let Some(record) = record_of(&owner, ttl, *address, self.kind()) {
                answer.add_answer(record);
            }
        }
        answer
    }

    pub(crate) fn code(&self, code: ResponseCode) -> Message {
        let mut answer = self.response();
        answer.metadata.response_code = code;
        answer
    }
}

fn record_of(owner: &Name, ttl: u32, address: IpAddr, kind: RecordType) -> Option<Record> {
    let data = match (address, kind) {
        (IpAddr::V4(address), RecordType::A) => RData::A(A(address)),
        (IpAddr::V6(address), RecordType::AAAA) => RData::AAAA(AAAA(address)),
        _ => return None,
    };
    Some(Record::from_rdata(owner.clone(), ttl, data))
}

pub(crate) fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
}

pub(crate) fn message(message: &Message) -> Vec<Back> {
    vec![Back::Message(message.to_vec().unwrap())]
}

/// A server that remembers what it was asked.
pub(crate) struct Script {
    pub(crate) server: Server,
    asked: Arc<Mutex<Vec<Query>>>,
}

impl Script {
    pub(crate) fn new(
        events: &LoopHandle,
        mut answer: impl FnMut(&Query) -> Vec<Back> + Send + 'static,
    ) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let list = asked.clone();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = serve(events, at, move |bytes, over| {
            let message = Message::from_vec(bytes).unwrap();
            let query = Query { message, over };
            list.lock().unwrap().push(query.clone());
            answer(&query)
        });
        Self {
            server: server.unwrap(),
            asked,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub(crate) fn asked(&self) -> Vec<Query> {
        self.asked.lock().unwrap().clone()
    }

    /// A resolver that asks here, and soon gives up.
    pub(crate) fn builder(&self, events: &LoopHandle) -> DnsBuilder {
        Dns::builder(events)
            .name_server(self.address())
            .timeout(PATIENCE)
            .attempts(0)
    }

    pub(crate) fn resolver(&self, events: &LoopHandle) -> Dns {
        self.builder(events).build().unwrap()
    }
}
