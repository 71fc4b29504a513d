//! A small name server: UDP straight on the loop, TCP by bufferevents, answers from a file like `/etc/hosts`.
//!
//! ```text
//! cargo run -p bufferevent-dns --example dns_server -- 127.0.0.1:5353 /etc/hosts
//! dig @127.0.0.1 -p 5353 localhost AAAA
//! ```
//!
//! On TCP each message has its length in front. That is what a low-water mark is for: the read callback runs when the two bytes are
//! there, sets the mark to the whole message, and runs again when that is there; nothing is copied until then.
//!
//! What answers is a function from bytes to bytes. The tests of this crate put functions there that lie, say nothing, or
//! break off.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bufferevent_core::{Bev, Error, Event, Handler, READ};
use bufferevent_socket::{Address, Listener};
use evreactor::{EventLoop, Interest, LoopHandle, Priority, Ready, Registration};
use evreactor_core::Target;
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// How a question came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Over {
    Udp(SocketAddr),
    Tcp,
}

/// What goes back.
#[derive(Clone, Debug)]
pub(crate) enum Back {
    /// A message.
    Message(Vec<u8>),
    /// On TCP, bytes as they are.
    #[allow(dead_code, reason = "for tests")]
    Raw(Vec<u8>),
    /// On TCP, the end.
    #[allow(dead_code, reason = "for tests")]
    End,
}

/// What answers questions.
pub(crate) type Answer = dyn FnMut(&[u8], Over) -> Vec<Back> + Send;

/// A server, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _listener: Listener,
    _datagrams: Arc<Datagrams>,
}

/// Datagrams that are answered before others have their turn.
const DATAGRAMS_PER_TURN: usize = 64;

/// How long a client may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves at `address`, both ways. Port 0 takes one that is free.
pub(crate) fn serve(
    events: &LoopHandle,
    address: SocketAddr,
    answer: impl FnMut(&[u8], Over) -> Vec<Back> + Send + 'static,
) -> Result<Server, Box<dyn std::error::Error>> {
    let answer: Arc<Mutex<Answer>> = Arc::new(Mutex::new(answer));
    let (socket, listener) = bind(events, address, &answer)?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    let datagrams = Arc::new(Datagrams {
        registration: OnceLock::new(),
        socket,
        answer,
        events: events.clone(),
        me: OnceLock::new(),
    });
    let registration = events.register(
        &datagrams.socket,
        Interest::BOTH,
        Priority::default(),
        datagrams.clone(),
        0,
    )?;
    let _ = datagrams.me.set(Arc::downgrade(&datagrams));
    let _ = datagrams.registration.set(Mutex::new(Some(registration)));
    Ok(Server {
        address,
        _listener: listener,
        _datagrams: datagrams,
    })
}

/// Both sockets, at one port.
fn bind(
    events: &LoopHandle,
    address: SocketAddr,
    answer: &Arc<Mutex<Answer>>,
) -> Result<(UdpSocket, Listener), Box<dyn std::error::Error>> {
    let mut left = 100;
    loop {
        let socket = UdpSocket::bind(address)?;
        let local = Address::Tcp(socket.local_addr()?);
        let answer = answer.clone();
        let listening = Listener::bind(events, local, move |bev, _| {
            bev.set_deadline(bufferevent_core::Deadline::Idle, Some(PATIENCE))?;
            bev.set_handler(Stream {
                answer: answer.clone(),
            })?;
            bev.set_read_watermark(LENGTH, 0)?;
            bev.enable(READ)
        });
        left -= 1;
        match listening {
            Ok(listener) => return Ok((socket, listener)),
            // The port that is free for one is taken for the other.
            Err(_) if address.port() == 0 && left > 0 => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(registration) = self._datagrams.registration.get() {
            drop(registration.lock().unwrap().take());
        }
    }
}

/// The datagram side.
struct Datagrams {
    registration: OnceLock<Mutex<Option<Registration>>>,
    socket: UdpSocket,
    answer: Arc<Mutex<Answer>>,
    events: LoopHandle,
    me: OnceLock<std::sync::Weak<Datagrams>>,
}

impl Datagrams {
    fn answer_some(&self) {
        let mut bytes = vec![0; 65_536];
        for _ in 0..DATAGRAMS_PER_TURN {
            let (length, from) = match self.socket.recv_from(&mut bytes) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return self.rearm(),
            };
            let answers = (self.answer.lock().unwrap())(&bytes[..length], Over::Udp(from));
            for back in answers {
                if let Back::Message(message) = back {
                    // One that does not go out is one that was lost on the way.
                    let _ = self.socket.send_to(&message, from);
                }
            }
        }
        if let Some(me) = self.me.get().and_then(std::sync::Weak::upgrade) {
            let _ = self.events.post(move || me.answer_some());
        }
    }

    fn rearm(&self) {
        if let Some(registration) = self.registration.get()
            && let Some(registration) = &*registration.lock().unwrap()
        {
            let _ = registration.rearm();
        }
    }
}

impl Target for Datagrams {
    fn run(&self, _key: u64) {}

    fn expired(&self, _key: u64) {}

    fn ready(&self, _key: u64, _ready: Ready) {
        self.answer_some();
    }
}

/// Bytes of the length in front of a message.
const LENGTH: usize = 2;

/// A client that came by TCP.
struct Stream {
    answer: Arc<Mutex<Answer>>,
}

impl Stream {
    fn answer_all(&mut self, bev: &Bev) -> Result<(), Error> {
        loop {
            let mut length = [0; LENGTH];
            if bev.input().copy_out(&mut length)? < LENGTH {
                return bev.set_read_watermark(LENGTH, 0);
            }
            let whole = LENGTH + usize::from(u16::from_be_bytes(length));
            if bev.input().len() < whole {
                return bev.set_read_watermark(whole, 0);
            }
            let mut message = vec![0; whole];
            bev.read(&mut message)?;
            let answers = (self.answer.lock().unwrap())(&message[LENGTH..], Over::Tcp);
            for back in answers {
                match back {
                    Back::Message(message) => {
                        let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
                        bev.write(&length.to_be_bytes())?;
                        bev.write(&message)?;
                    }
                    Back::Raw(bytes) => bev.write(&bytes)?,
                    Back::End => {
                        bev.close(PATIENCE)?;
                    }
                }
            }
        }
    }
}

impl Handler for Stream {
    fn on_read(&mut self, bev: &Bev) {
        if let Err(error) = self.answer_all(bev) {
            eprintln!("{error}");
            let _ = bev.free();
        }
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        if matches!(event, Event::Eof) {
            // What was asked is answered first.
            let _ = bev.close(PATIENCE);
        } else {
            let _ = bev.free();
        }
    }
}

/// Names and their addresses.
struct Zone(Vec<(Name, IpAddr)>);

/// What fits into a datagram without being asked whether it does.
const DATAGRAM: usize = 512;

impl Zone {
    fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let mut names = Vec::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or("");
            let mut words = line.split_whitespace();
            let Some(address) = words.next() else {
                continue;
            };
            let address: IpAddr = address.parse()?;
            for word in words {
                let mut name = Name::from_utf8(word)?;
                name.set_fqdn(true);
                names.push((name, address));
            }
        }
        Ok(Self(names))
    }

    fn answer(&self, question: &[u8], over: Over) -> Vec<Back> {
        // What cannot be read is not worth an answer.
        let Ok(question) = Message::from_vec(question) else {
            return Vec::new();
        };
        if question.metadata.message_type != MessageType::Query {
            return Vec::new();
        }
        let answer = self.answer_to(&question);
        let limit = usize::from(question.max_payload()).max(DATAGRAM);
        let bytes = match answer.to_vec() {
            Ok(bytes) if over == Over::Tcp || bytes.len() <= limit => bytes,
            Ok(_) => answer.truncate().to_vec().unwrap_or_default(),
            Err(_) => return Vec::new(),
        };
        vec![Back::Message(bytes)]
    }

    fn answer_to(&self, question: &Message) -> Message {
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.add_queries(question.queries.clone());
        let Some(query) = question.queries.first() else {
            answer.metadata.response_code = ResponseCode::FormErr;
            return answer;
        };
        let of_name = || self.0.iter().filter(|(name, _)| name == query.name());
        if of_name().next().is_none() {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        for (name, address) in of_name() {
            let data = match (address, query.query_type()) {
                (IpAddr::V4(address), RecordType::A) => RData::A(A(*address)),
                (IpAddr::V6(address), RecordType::AAAA) => RData::AAAA(AAAA(*address)),
                _ => continue,
            };
            answer.add_answer(Record::from_rdata(name.clone(), 60, data));
        }
        answer
    }
}

#[allow(dead_code, reason = "tests use this file as a module")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, file] = &arguments[..] else {
        return Err("usage: dns_server ADDRESS:PORT HOSTS-FILE".into());
    };
    let zone = Zone::parse(&std::fs::read_to_string(file)?)?;
    let events = EventLoop::new()?;
    let answer = move |question: &[u8], over| zone.answer(question, over);
    let server = serve(&events, address.parse()?, answer)?;
    println!("serving at {}", server.address);
    events.run()?;
    Ok(())
}

/// The example's own answers, for the tests.
#[allow(dead_code, reason = "tests use this file as a module")]
pub(crate) fn zone(text: &str) -> Result<Box<Answer>, Box<dyn std::error::Error>> {
    let zone = Zone::parse(text)?;
    Ok(Box::new(move |question, over| zone.answer(question, over)))
}
