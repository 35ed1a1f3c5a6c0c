//! Messages from clients.

use crate::limits;
use crate::mutation::Mutation;
use crate::shape::ShapeRequest;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The frame around a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The join it belongs to.
    pub join_ref: Option<String>,
    /// To be repeated in the reply.
    pub reference: Option<String>,
    /// Topic.
    pub topic: String,
}

/// A client's first message.
#[derive(Debug, Clone, Deserialize)]
pub struct Join {
    /// Protocol version.
    pub protocol: u64,
    /// Optional features the client has.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Features the client cannot do without.
    #[serde(default)]
    pub required: Vec<String>,
    /// Reserved.
    #[serde(default)]
    pub subject: String,
    /// Client id, if it has one.
    #[serde(default)]
    pub client: Option<String>,
    /// Cursor, if it has one.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Shapes wanted.
    #[serde(default)]
    pub shapes: Vec<ShapeRequest>,
}

/// A sign of life, and a question.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Heartbeat {
    /// False: the answer is not to hold a cursor. Who asks every other second how old its state is needs none.
    #[serde(default)]
    pub cursor: Option<bool>,
}

/// More shapes.
#[derive(Debug, Clone, Deserialize)]
pub struct Subscribe {
    /// Shapes wanted.
    pub shapes: Vec<ShapeRequest>,
}

/// Fewer shapes.
#[derive(Debug, Clone, Deserialize)]
pub struct Unsubscribe {
    /// The client's names of them.
    pub refs: Vec<String>,
}

/// Writes.
#[derive(Debug, Clone, Deserialize)]
pub struct MutateFrame {
    /// Outcomes up to here are stored by the client.
    #[serde(default = "zero", deserialize_with = "super::number")]
    pub confirmed: u64,
    /// In the order of their numbers.
    pub mutations: Vec<Mutation>,
}

impl MutateFrame {
    /// Whether its mutations can be run at all.
    ///
    /// # Errors
    /// What about them is not as docs/protocol.md says.
    pub fn check(&self) -> Result<(), String> {
        let most = limits::MUTATIONS_PER_FRAME;
        if self.mutations.len() > most {
            return Err(format!("more than {most} mutations in one message; send them in several"));
        }
        if self.mutations.iter().any(|m| m.n == 0 || i64::try_from(m.n).is_err()) {
            return Err("mutations are numbered from 1".into());
        }
        if self.mutations.iter().all(|m| is_id(&m.id)) { Ok(()) } else { Err(ID_RULE.into()) }
    }
}

/// What [`is_id`] asks for.
pub const ID_RULE: &str = "an id has 1 to 100 characters, none of them a control character";

/// Ids are stored before anything can be refused under them, so they must be storable.
pub fn is_id(text: &str) -> bool {
    (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// Writes without a session: the body of `POST /v1/mutations`.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "PostBody")]
pub struct Post {
    /// Reserved.
    pub subject: String,
    /// Client id, if it has one.
    pub client: Option<String>,
    /// As over a session.
    pub frame: MutateFrame,
}

/// Its fields as they stand in the body. `flatten` would read operations before they can be read one by one.
#[derive(Deserialize)]
struct PostBody {
    #[serde(default)]
    subject: String,
    #[serde(default)]
    client: Option<String>,
    #[serde(default = "zero", deserialize_with = "super::number")]
    confirmed: u64,
    mutations: Vec<Mutation>,
}

impl From<PostBody> for Post {
    fn from(body: PostBody) -> Self {
        let PostBody { subject, client, confirmed, mutations } = body;
        Self { subject, client, frame: MutateFrame { confirmed, mutations } }
    }
}

fn zero() -> u64 {
    0
}

/// A message, understood.
#[derive(Debug, Clone)]
pub enum Up {
    /// `phoenix` / `heartbeat`.
    Heartbeat(Heartbeat),
    /// `phx_join`.
    Join(Box<Join>),
    /// `phx_leave`.
    Leave,
    /// `subscribe`.
    Subscribe(Subscribe),
    /// `unsubscribe`.
    Unsubscribe(Unsubscribe),
    /// `mutate`.
    Mutate(MutateFrame),
    /// Another event: answered with an error, otherwise ignored.
    Unknown(String),
}

/// A message that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpError {
    /// Not even a frame: the connection is closed.
    Frame(String),
    /// A frame with a bad payload: answered with `malformed`.
    Payload(Envelope, String),
}

/// Reads one text frame. Never panics; depth is bounded by serde_json's recursion limit of 128.
pub fn parse(text: &str) -> Result<(Envelope, Up), UpError> {
    type Raw<'a> = (Option<String>, Option<String>, String, String, &'a RawValue);
    let (join_ref, reference, topic, event, payload): Raw<'_> =
        serde_json::from_str(text).map_err(|e| UpError::Frame(e.to_string()))?;
    let envelope = Envelope { join_ref, reference, topic };
    let up = match event.as_str() {
        // Whatever a phoenix client may send in it.
        "heartbeat" if envelope.topic == "phoenix" => {
            Ok(Up::Heartbeat(serde_json::from_str(payload.get()).unwrap_or_default()))
        }
        "phx_join" => serde_json::from_str(payload.get()).map(|j| Up::Join(Box::new(j))),
        "phx_leave" => Ok(Up::Leave),
        "subscribe" => serde_json::from_str(payload.get()).map(Up::Subscribe),
        "unsubscribe" => serde_json::from_str(payload.get()).map(Up::Unsubscribe),
        "mutate" => serde_json::from_str(payload.get()).map(Up::Mutate),
        _ => Ok(Up::Unknown(event)),
    };
    match up {
        Ok(up) => Ok((envelope, up)),
        Err(error) => Err(UpError::Payload(envelope, unreadable(&error))),
    }
}

/// Why JSON could not be read, in words that say what to do.
pub fn unreadable(error: &serde_json::Error) -> String {
    let said = error.to_string();
    if said.starts_with("recursion limit exceeded") {
        unreadable_depth()
    } else if said.contains("hex escape") {
        format!(
            "a text holds half of a character, a surrogate without the other one; send whole ones: {said}"
        )
    } else {
        said
    }
}

/// The same at the bound of [`limits::NESTING`].
pub fn unreadable_depth() -> String {
    format!("arrays and objects are nested deeper than {} levels; send flatter ones", limits::NESTING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_join_as_the_phoenix_client_sends_it() {
        let text = r#"["3","3","sync","phx_join",{"protocol":1,"capabilities":["x"],"shapes":[{"ref":"a","table":"t"}]}]"#;
        let (envelope, up) = parse(text).unwrap();
        assert_eq!(envelope.reference.as_deref(), Some("3"));
        let Up::Join(join) = up else { panic!("{up:?}") };
        assert_eq!((join.protocol, join.shapes.len(), join.cursor), (1, 1, None));
        assert!(matches!(parse("{}"), Err(UpError::Frame(_))));
        assert!(matches!(parse(r#"[null,"1","sync","phx_join",{}]"#), Err(UpError::Payload(..))));
        assert!(matches!(parse(r#"[null,"1","sync","dance",{}]"#), Ok((_, Up::Unknown(_)))));
    }

    /// Deep enough to exhaust a stack, were it read level by level.
    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| {
            let deep = "[".repeat(levels) + &"]".repeat(levels);
            parse(&format!(
                r#"[null,"1","sync","mutate",{{"mutations":[{{"n":"1","id":"m","kind":"ops","ops":[{deep}]}}]}}]"#
            ))
        };
        let operation = |levels: usize| match nested(levels) {
            Ok((_, Up::Mutate(frame))) => frame.mutations[0].ops[0].clone(),
            other => panic!("{other:?}"),
        };
        assert!(operation(limits::NESTING).is_ok());
        for levels in [limits::NESTING + 1, 100_000] {
            assert_eq!(operation(levels), Err(unreadable_depth()));
        }
        // What is not an operation is the message's own.
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let message = |levels| parse(&format!(r#"[null,"1","sync","mutate",{}]"#, deep(levels)));
        assert!(
            matches!(message(limits::NESTING + 1), Err(UpError::Payload(_, why)) if why == unreadable_depth())
        );
        assert!(matches!(message(100_000), Err(UpError::Payload(..))));
        assert!(matches!(parse(&"[".repeat(1 << 20)), Err(UpError::Frame(_))));
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}
