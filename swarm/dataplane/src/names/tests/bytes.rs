//! What comes from outside: answers that are none, and bytes of any kind.

use super::*;

fn forwarded(query: &Message) -> Question {
    let packet = query.to_vec().unwrap();
    match reply(&Book::default(), "asker", &packet, Way::Udp, 0) {
        Reply::Forward(question) => question,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_answer_to_the_question_is_handed_on() {
    let asked = query("Example.com", RecordType::A);
    let question = forwarded(&asked);
    let sent = Message::from_vec(&question.packet(77)).unwrap();
    assert_eq!((sent.id, &sent.queries), (77, &asked.queries));
    let answer = |id: u16, name: &str, kind, code| {
        let mut answer = Message::error_msg(id, OpCode::Query, code);
        answer.queries = query(name, kind).queries;
        answer
    };
    use ResponseCode::{NXDomain, NoError, ServFail};
    let good = answer(77, "example.COM", RecordType::A, NXDomain);
    let is_answer = |it: &Message| question.is_answer(&it.to_vec().unwrap(), 77);
    assert!(is_answer(&good));
    assert!(!is_answer(&answer(
        78,
        "example.com",
        RecordType::A,
        NoError
    )));
    assert!(!is_answer(&answer(
        77,
        "example.org",
        RecordType::A,
        NoError
    )));
    assert!(!is_answer(&answer(
        77,
        "example.com",
        RecordType::AAAA,
        NoError
    )));
    assert!(!is_answer(&sent));
    let mut bare = answer(77, "example.com", RecordType::A, ServFail);
    bare.queries.clear();
    assert!(is_answer(&bare));
    bare.metadata.response_code = NoError;
    assert!(!is_answer(&bare));

    let handed = question.hand_on(good.to_vec().unwrap()).unwrap();
    let handed = Message::from_vec(&handed).unwrap();
    assert_eq!((handed.id, handed.response_code), (asked.id, NXDomain));
    let long = vec![0; 600];
    let cut = Message::from_vec(&question.hand_on(long).unwrap()).unwrap();
    assert!(cut.truncation && cut.id == asked.id && cut.queries == asked.queries);
    for (packet, code) in [(question.failed(), ServFail), (question.nobody(), NXDomain)] {
        let message = Message::from_vec(&packet.unwrap()).unwrap();
        assert_eq!((message.id, message.response_code), (asked.id, code));
        assert_eq!(message.queries, asked.queries);
    }
}

fn label() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(vec!["web", "tasks", "back", "WWW", "rr", "1", "a.b"])
            .prop_map(|it| it.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 1..63),
    ]
}

proptest! {
    /// Whatever comes, it is answered under its own number, or handed on, or left alone.
    #[test]
    fn no_packet_makes_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        plain in any::<bool>(),
    ) {
        let mut packet = bytes;
        if plain && packet.len() > 12 {
            packet[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        let book = book(changes());
        for way in [Way::Udp, Way::Tcp] {
            match reply(&book, "asker", &packet, way, 3) {
                Reply::Say(answer) => {
                    prop_assert_eq!(&answer[..2], &packet[..2]);
                    prop_assert!(answer[2] & 0x80 != 0);
                }
                Reply::Forward(question) => {
                    prop_assert_eq!(&question.packet(1)[2..], &packet[2..]);
                    let _ = question.is_answer(&packet, 1);
                    prop_assert_eq!(&question.failed().unwrap()[..2], &packet[..2]);
                    let _ = question.hand_on(packet.clone());
                }
                Reply::Silence => {}
            }
            let _ = super::super::wire::addresses(&packet);
            let _ = super::super::wire::is_failure(&packet);
        }
    }

    /// An answer keeps to the size that the asker takes, and always says what was asked.
    #[test]
    fn every_question_is_answered_within_its_size(
        labels in prop::collection::vec(label(), 0..4),
        kind in any::<u16>(),
        size in prop::option::of(any::<u16>()),
        turn in any::<usize>(),
    ) {
        let Ok(mut name) = Name::from_labels(labels.iter().map(Vec::as_slice)) else {
            return Ok(());
        };
        name.set_fqdn(true);
        let kind = if kind % 2 == 0 { RecordType::A } else { RecordType::from(kind) };
        let mut message = Message::query();
        message.add_query(Query::query(name, kind));
        if let Some(size) = size {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            message.set_edns(edns);
        }
        let packet = message.to_vec().unwrap();
        let book = book(changes());
        if let Reply::Say(answer) = reply(&book, "asker", &packet, Way::Udp, turn) {
            let most = size.map_or(512, |it| it.max(512));
            prop_assert!(answer.len() <= usize::from(most));
            let answer = Message::from_vec(&answer).unwrap();
            prop_assert_eq!(answer.queries, message.queries);
        }
    }
}
