//! DNS messages as bytes: reading what is needed of them, and making them fit for whoever asked.
//! Pure; whatever the bytes are, nothing panics.

use std::net::IpAddr;

use hickory_proto::op::{Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};

/// The length of a message's head.
const HEAD: usize = 12;
/// The most that anybody takes in a datagram without having said so.
const PLAIN: u16 = 512;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// In a datagram.
    Udp,
    /// In a stream.
    Tcp,
}

/// A question for somebody else, with what its answer must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    packet: Vec<u8>,
    asked: Query,
    limit: u16,
}

impl Question {
    /// From a packet that has been read.
    pub(crate) fn new(packet: &[u8], asked: &Query, limit: u16) -> Option<Self> {
        let long_enough = packet.len() >= HEAD;
        long_enough.then(|| Self {
            packet: packet.to_vec(),
            asked: asked.clone(),
            limit,
        })
    }

    /// The packet for another resolver, under a number that the asker does not know.
    pub(crate) fn packet(&self, id: u16) -> Vec<u8> {
        numbered(self.packet.clone(), id)
    }

    /// Whether this is the answer to it, under that number. One that only says that it failed may
    /// leave the question out.
    pub(crate) fn is_answer(&self, packet: &[u8], id: u16) -> bool {
        let mut decoder = BinDecoder::new(packet);
        let Ok(header) = Header::read(&mut decoder) else {
            return false;
        };
        let answers = header.message_type == MessageType::Response
            && header.op_code == OpCode::Query
            && header.id == id;
        let same = match header.counts.queries {
            0 => header.response_code != ResponseCode::NoError,
            1 => Query::read(&mut decoder).is_ok_and(|it| {
                it.name.eq_ignore_root(&self.asked.name)
                    && it.query_type == self.asked.query_type
                    && it.query_class == self.asked.query_class
            }),
            _ => false,
        };
        answers && same
    }

    /// Another resolver's answer as whoever asked takes it.
    pub(crate) fn hand_on(&self, answer: Vec<u8>) -> Option<Vec<u8>> {
        let id = metadata(&self.packet)?.id;
        if answer.len() <= usize::from(self.limit) {
            return Some(numbered(answer, id));
        }
        let mut short = self.refusal(ResponseCode::NoError)?;
        short.metadata.truncation = true;
        encode(short, self.limit)
    }

    /// Nobody could say.
    pub(crate) fn failed(&self) -> Option<Vec<u8>> {
        encode(self.refusal(ResponseCode::ServFail)?, self.limit)
    }

    /// There is no such name.
    pub(crate) fn nobody(&self) -> Option<Vec<u8>> {
        encode(self.refusal(ResponseCode::NXDomain)?, self.limit)
    }

    fn refusal(&self, code: ResponseCode) -> Option<Message> {
        let mut message = refusal(&metadata(&self.packet)?, code);
        message.queries.push(self.asked.clone());
        Some(message)
    }
}

/// The head of a message.
pub(crate) fn metadata(packet: &[u8]) -> Option<Metadata> {
    let header = Header::read(&mut BinDecoder::new(packet));
    header.ok().map(|it| it.metadata)
}

/// How large an answer may be.
pub(crate) fn limit(query: &Message, way: Way) -> u16 {
    match way {
        Way::Tcp => u16::MAX,
        Way::Udp => query.max_payload().max(PLAIN),
    }
}

/// A name as text without the last dot; `None` if it is none that we could have given.
pub(crate) fn text(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        let label = std::str::from_utf8(label).ok()?;
        if label.contains('.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(label);
    }
    Some(text)
}

/// Refuses a packet of which only the head can be read.
pub(crate) fn failure(packet: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    encode(refusal(&metadata(packet)?, code), PLAIN)
}

fn refusal(query: &Metadata, code: ResponseCode) -> Message {
    let mut message = Message::response(query.id, query.op_code);
    message.metadata.recursion_desired = query.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message
}

/// The bytes of a message with as many answers as fit; the head says if that is not all.
pub(crate) fn encode(mut message: Message, limit: u16) -> Option<Vec<u8>> {
    let whole = bytes(&message)?;
    let limit = usize::from(limit);
    if whole.len() <= limit {
        return Some(whole);
    }
    let answers = std::mem::take(&mut message.answers);
    message.metadata.truncation = true;
    let bare = bytes(&message)?;
    // They are all of one kind and of one name, so each takes as much as any other.
    let each = whole.len().saturating_sub(bare.len()) / answers.len().max(1);
    let room = limit.saturating_sub(bare.len());
    let fit = room.checked_div(each).unwrap_or(0);
    message.answers = answers.into_iter().take(fit).collect();
    let cut = bytes(&message)?;
    Some(if cut.len() <= limit { cut } else { bare })
}

fn bytes(message: &Message) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::from(PLAIN));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(u16::MAX);
    message.emit(&mut encoder).ok()?;
    Some(bytes)
}

fn numbered(mut packet: Vec<u8>, id: u16) -> Vec<u8> {
    for (at, byte) in packet.iter_mut().zip(id.to_be_bytes()) {
        *at = byte;
    }
    packet
}

/// The addresses that an answer of another resolver gives for the very name that was asked.
pub(crate) fn addresses(answer: &[u8]) -> Vec<IpAddr> {
    let Ok(message) = Message::from_vec(answer) else {
        return Vec::new();
    };
    let data = message.answers.iter().map(|record| &record.data);
    let addresses = data.filter_map(|data| match data {
        RData::A(it) => Some(IpAddr::V4(it.0)),
        RData::AAAA(it) => Some(IpAddr::V6(it.0)),
        _ => None,
    });
    addresses.collect()
}

/// Whether a resolver says that it cannot say, so that another may be asked.
pub(crate) fn is_failure(answer: &[u8]) -> bool {
    metadata(answer).is_none_or(|it| {
        matches!(
            it.response_code,
            ResponseCode::ServFail | ResponseCode::Refused
        )
    })
}
