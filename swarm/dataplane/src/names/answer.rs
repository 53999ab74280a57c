//! From a packet that a container sent to the answer, or to what is to be asked elsewhere. Pure:
//! chance is an argument, and no packet makes it panic.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::book::{Book, Found};
use super::wire::{self, Question, Way};

/// How long an answer may be kept: not at all, since the next one can be another.
const TTL: u32 = 0;
/// The most that is taken in one datagram, told to those who say what they take.
const PAYLOAD: u16 = 4096;

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It is answered.
    Say(Vec<u8>),
    /// It is no question about our names: somebody else may know.
    Forward(Question),
    /// It is left alone: an answer, or not even the beginning of a question.
    Silence,
}

/// Answers a packet of a container. `turn` says which of several addresses comes first.
pub(crate) fn reply(book: &Book, asker: &str, packet: &[u8], way: Way, turn: usize) -> Reply {
    let Some(metadata) = wire::metadata(packet) else {
        return Reply::Silence;
    };
    if metadata.message_type != MessageType::Query {
        return Reply::Silence;
    }
    if metadata.op_code != OpCode::Query {
        return say(wire::failure(packet, ResponseCode::NotImp));
    }
    let query = match Message::from_vec(packet) {
        Ok(query) if query.queries.len() == 1 => query,
        _ => return say(wire::failure(packet, ResponseCode::FormErr)),
    };
    let limit = wire::limit(&query, way);
    if query.version() > 0 {
        let reply = blank(&query, ResponseCode::BADVERS);
        return say(wire::encode(reply, limit));
    }
    let Some(asked) = query.queries.first() else {
        return Reply::Silence;
    };
    let found = match asked.query_class {
        DNSClass::IN => find(book, asker, &asked.name),
        _ => Found::Unknown,
    };
    let (code, data) = match found {
        Found::Unknown => {
            return Question::new(packet, asked, limit).map_or(Reply::Silence, Reply::Forward);
        }
        Found::Nameless => (ResponseCode::NXDomain, Vec::new()),
        Found::Name(name) => (
            ResponseCode::NoError,
            pointer(&name, asked.query_type).into_iter().collect(),
        ),
        Found::Addresses(all) => (
            ResponseCode::NoError,
            addresses(&all, asked.query_type, turn),
        ),
    };
    let mut reply = blank(&query, code);
    let records = data
        .into_iter()
        .map(|data| Record::from_rdata(asked.name.clone(), TTL, data));
    reply.answers = records.collect();
    say(wire::encode(reply, limit))
}

fn say(packet: Option<Vec<u8>>) -> Reply {
    packet.map_or(Reply::Silence, Reply::Say)
}

fn find(book: &Book, asker: &str, name: &Name) -> Found {
    if let Ok(range) = name.parse_arpa_name() {
        let whole = range.prefix_len() == range.max_prefix_len();
        return match range.addr() {
            address if whole => book.address(asker, address),
            _ => Found::Unknown,
        };
    }
    wire::text(name).map_or(Found::Unknown, |name| book.name(asker, &name))
}

/// An answer that says nothing yet.
fn blank(query: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(query.id, OpCode::Query);
    reply.metadata.recursion_desired = query.recursion_desired;
    reply.metadata.checking_disabled = query.checking_disabled;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.queries.clone_from(&query.queries);
    reply.edns = query.edns.as_ref().map(|_| {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        edns
    });
    reply
}

/// Those of the addresses that were asked for, another one first each time.
fn addresses(all: &[IpAddr], kind: RecordType, turn: usize) -> Vec<RData> {
    let wanted = all.iter().filter_map(|address| match (address, kind) {
        (IpAddr::V4(it), RecordType::A | RecordType::ANY) => Some(RData::A(A(*it))),
        (IpAddr::V6(it), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(*it))),
        _ => None,
    });
    let mut data: Vec<RData> = wanted.collect();
    if !data.is_empty() {
        let first = turn % data.len();
        data.rotate_left(first);
    }
    data
}

fn pointer(name: &str, kind: RecordType) -> Option<RData> {
    if !matches!(kind, RecordType::PTR | RecordType::ANY) {
        return None;
    }
    let mut name = Name::from_labels(name.split('.').map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(RData::PTR(PTR(name)))
}
