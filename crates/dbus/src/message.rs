//! Messages and their wire format (D-Bus Specification, "Message Protocol" and "Marshaling"). Pure.

/// Bytes that tell how long a message is.
pub const HEAD: usize = 16;
/// Longest message that is taken, bytes; the specification's limit is 128 MiB.
const MAX_MESSAGE: usize = 1 << 20;
/// The one version of the protocol.
const VERSION: u8 = 1;
/// `NO_AUTO_START`: a service that does not run is not started for a call.
const NO_AUTO_START: u8 = 0x2;
/// Values in values, at most.
const MAX_DEPTH: u8 = 4;

/// Numbers of header fields.
mod field {
    /// `PATH`.
    pub const PATH: u8 = 1;
    /// `INTERFACE`.
    pub const INTERFACE: u8 = 2;
    /// `MEMBER`.
    pub const MEMBER: u8 = 3;
    /// `ERROR_NAME`.
    pub const ERROR_NAME: u8 = 4;
    /// `REPLY_SERIAL`.
    pub const REPLY_SERIAL: u8 = 5;
    /// `DESTINATION`.
    pub const DESTINATION: u8 = 6;
    /// `SENDER`.
    pub const SENDER: u8 = 7;
    /// `SIGNATURE`.
    pub const SIGNATURE: u8 = 8;
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a method.
    Call,
    /// The answer to a call.
    Return,
    /// The other answer.
    Error,
    /// To whoever wants it.
    Signal,
    /// Of a later version of the protocol; to be ignored.
    Other,
}

/// A value of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A boolean.
    Bool(bool),
    /// An unsigned number of 32 bits.
    U32(u32),
    /// A string, the path of an object, or a signature.
    Text(String),
    /// An array of strings.
    Texts(Vec<String>),
    /// An array of entries from strings to variants.
    Entries(Vec<(String, Value)>),
}

impl Value {
    /// A string.
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    fn signature(&self) -> &'static str {
        match self {
            Value::Bool(_) => "b",
            Value::U32(_) => "u",
            Value::Text(_) => "s",
            Value::Texts(_) => "as",
            Value::Entries(_) => "a{sv}",
        }
    }
}

/// A method to be called.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The service's name.
    pub destination: &'a str,
    /// Of its object.
    pub path: &'a str,
    /// That the object has.
    pub interface: &'a str,
    /// The method of the interface.
    pub member: &'a str,
    /// Its arguments.
    pub body: &'a [Value],
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The sender's number of it.
    pub serial: u32,
    /// The number of the call that it answers.
    pub reply_to: Option<u32>,
    /// The object that it is from or for.
    pub path: Option<String>,
    /// The object's interface.
    pub interface: Option<String>,
    /// The method or signal.
    pub member: Option<String>,
    /// The name of an error.
    pub error: Option<String>,
    /// The connection that it is from.
    pub sender: Option<String>,
    /// The connection that it is for.
    pub destination: Option<String>,
    /// Its values up to the first whose type this client does not know.
    pub body: Vec<Value>,
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// A call as it is sent. Strings must not contain NUL.
pub fn encode(call: &Call<'_>, serial: u32) -> Vec<u8> {
    let mut body = Writer::default();
    call.body.iter().for_each(|value| body.value(value));
    let mut message = Writer::default();
    message.bytes.extend([b'l', 1, NO_AUTO_START, VERSION]);
    message.u32(length_of(&body.bytes));
    message.u32(serial);
    let signature: String = call.body.iter().map(Value::signature).collect();
    message.array(8, |fields| {
        let mut text = |number: u8, signature: &str, text: &str| {
            fields.align(8);
            fields.bytes.push(number);
            fields.signature(signature);
            fields.string(text);
        };
        text(field::PATH, "o", call.path);
        text(field::INTERFACE, "s", call.interface);
        text(field::MEMBER, "s", call.member);
        text(field::DESTINATION, "s", call.destination);
        if !signature.is_empty() {
            fields.align(8);
            fields.bytes.push(field::SIGNATURE);
            fields.signature("g");
            fields.signature(&signature);
        }
    });
    message.align(8);
    message.bytes.extend(body.bytes);
    message.bytes
}

/// The length of the message that begins with these bytes. Errors: it is none, or longer than is taken.
pub fn length(head: &[u8; HEAD]) -> Result<usize, Malformed> {
    let mut reader = Reader::new(head, order(head[0])?);
    if head[3] != VERSION {
        return Err(Malformed("another version of the protocol"));
    }
    reader.at = 4;
    let body = reader.u32()? as usize;
    reader.at = 12;
    let fields = reader.u32()? as usize;
    let whole = fields.checked_next_multiple_of(8).and_then(|fields| fields.checked_add(HEAD)?.checked_add(body));
    whole.filter(|whole| *whole <= MAX_MESSAGE).ok_or(Malformed("a message that is too long"))
}

/// A whole message.
pub fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
    let head = bytes.first_chunk::<HEAD>().ok_or(Malformed("a message without a head"))?;
    if length(head)? != bytes.len() {
        return Err(Malformed("a message of another length"));
    }
    let mut reader = Reader::new(bytes, order(head[0])?);
    reader.at = 4;
    let body_length = reader.u32()? as usize;
    let mut message = Message {
        kind: match head[1] {
            1 => Kind::Call,
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => Kind::Other,
        },
        serial: reader.u32()?,
        reply_to: None,
        path: None,
        interface: None,
        member: None,
        error: None,
        sender: None,
        destination: None,
        body: Vec::new(),
    };
    let end = reader.u32()? as usize + HEAD;
    let mut signature = String::new();
    while reader.at < end {
        reader.align(8)?;
        let number = reader.byte()?;
        let kind = reader.signature()?;
        let value = reader.basic(&kind)?;
        let text = match value {
            Basic::Text(text) => text,
            Basic::Number(number_of) if number == field::REPLY_SERIAL => {
                message.reply_to = Some(number_of);
                continue;
            }
            Basic::Number(_) => continue,
        };
        match number {
            field::PATH => message.path = Some(text),
            field::INTERFACE => message.interface = Some(text),
            field::MEMBER => message.member = Some(text),
            field::ERROR_NAME => message.error = Some(text),
            field::DESTINATION => message.destination = Some(text),
            field::SENDER => message.sender = Some(text),
            field::SIGNATURE => signature = text,
            _ => (),
        }
    }
    if reader.at != end {
        return Err(Malformed("header fields beyond their length"));
    }
    message.body = body(&bytes[bytes.len() - body_length..], reader.order, &signature)?;
    Ok(message)
}

/// The values up to the first of an unknown type.
fn body(bytes: &[u8], order: Order, signature: &str) -> Result<Vec<Value>, Malformed> {
    let mut reader = Reader::new(bytes, order);
    let (mut values, mut rest) = (Vec::new(), signature);
    while let Some((kind, further)) = first_type(rest) {
        values.push(reader.value(kind, 0)?);
        rest = further;
    }
    Ok(values)
}

/// The first complete type of a signature, if it is known, and what follows it.
fn first_type(signature: &str) -> Option<(&str, &str)> {
    const KNOWN: [&str; 7] = ["b", "u", "s", "o", "g", "as", "a{sv}"];
    let kind = KNOWN.into_iter().find(|kind| signature.starts_with(kind))?;
    Some(signature.split_at(kind.len()))
}

#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

fn order(byte: u8) -> Result<Order, Malformed> {
    match byte {
        b'l' => Ok(Order::Little),
        b'B' => Ok(Order::Big),
        _ => Err(Malformed("no message of D-Bus")),
    }
}

/// The value of a header field.
enum Basic {
    Text(String),
    Number(u32),
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    order: Order,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], order: Order) -> Reader<'a> {
        Reader { bytes, at: 0, order }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(Malformed("a value beyond the end"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), Malformed> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1).map(|byte| byte[0])
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.align(4)?;
        let bytes = self.take(4)?.first_chunk().copied().unwrap_or_default();
        Ok(match self.order {
            Order::Little => u32::from_le_bytes(bytes),
            Order::Big => u32::from_be_bytes(bytes),
        })
    }

    fn text_of(&mut self, length: usize) -> Result<String, Malformed> {
        let text = self.take(length)?;
        if self.byte()? != 0 || text.contains(&0) {
            return Err(Malformed("a string without its end"));
        }
        String::from_utf8(text.to_vec()).map_err(|_| Malformed("a string that is not UTF-8"))
    }

    fn string(&mut self) -> Result<String, Malformed> {
        let length = self.u32()? as usize;
        self.text_of(length)
    }

    fn signature(&mut self) -> Result<String, Malformed> {
        let length = usize::from(self.byte()?);
        self.text_of(length)
    }

    fn basic(&mut self, kind: &str) -> Result<Basic, Malformed> {
        match kind {
            "s" | "o" => self.string().map(Basic::Text),
            "g" => self.signature().map(Basic::Text),
            "u" => self.u32().map(Basic::Number),
            _ => Err(Malformed("a header field of another type")),
        }
    }

    fn value(&mut self, kind: &str, depth: u8) -> Result<Value, Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed("values nested too deeply"));
        }
        match kind {
            "b" => match self.u32()? {
                0 => Ok(Value::Bool(false)),
                1 => Ok(Value::Bool(true)),
                _ => Err(Malformed("a boolean that is neither")),
            },
            "u" => self.u32().map(Value::U32),
            "g" => self.signature().map(Value::Text),
            "s" | "o" => self.string().map(Value::Text),
            "as" => {
                let end = self.array(4)?;
                let mut texts = Vec::new();
                while self.at < end {
                    texts.push(self.string()?);
                }
                self.ended(end).map(|()| Value::Texts(texts))
            }
            "a{sv}" => {
                let end = self.array(8)?;
                let mut entries = Vec::new();
                while self.at < end {
                    self.align(8)?;
                    let key = self.string()?;
                    let kind = self.signature()?;
                    let known = first_type(&kind).filter(|(_, rest)| rest.is_empty());
                    let (kind, _) = known.ok_or(Malformed("a variant of another type"))?;
                    entries.push((key, self.value(kind, depth + 1)?));
                }
                self.ended(end).map(|()| Value::Entries(entries))
            }
            _ => Err(Malformed("a value of another type")),
        }
    }

    /// Where the array ends that begins here, with elements of this alignment.
    fn array(&mut self, alignment: usize) -> Result<usize, Malformed> {
        let length = self.u32()? as usize;
        self.align(alignment)?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        end.ok_or(Malformed("an array beyond the end"))
    }

    fn ended(&self, end: usize) -> Result<(), Malformed> {
        if self.at == end { Ok(()) } else { Err(Malformed("an array of another length")) }
    }
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.u32(length_of(text.as_bytes()));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(on) => self.u32(u32::from(*on)),
            Value::U32(number) => self.u32(*number),
            Value::Text(text) => self.string(text),
            Value::Texts(texts) => self.array(4, |list| texts.iter().for_each(|text| list.string(text))),
            Value::Entries(entries) => self.array(8, |list| {
                for (key, value) in entries {
                    list.align(8);
                    list.string(key);
                    list.signature(value.signature());
                    list.value(value);
                }
            }),
        }
    }

    /// Its length in bytes, without the padding before its first element, then its elements.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let begin = self.bytes.len();
        elements(self);
        let length = length_of(&self.bytes[begin..]);
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// What is longer is refused by the bus.
fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(body: &[Value]) -> Call<'_> {
        Call { destination: "org.example.A", path: "/org/example", interface: "org.example.A", member: "Do", body }
    }

    #[test]
    fn calls_are_read_as_they_were_written() {
        let body = [
            Value::text("docker"),
            Value::Bool(true),
            Value::U32(7),
            Value::Texts(vec!["a".into(), String::new(), "Größe".into()]),
            Value::Entries(vec![
                ("target".into(), Value::text("ACCEPT")),
                ("zones".into(), Value::Texts(vec!["ANY".into()])),
                ("none".into(), Value::Entries(Vec::new())),
            ]),
            Value::Texts(Vec::new()),
        ];
        for count in 0..=body.len() {
            let body = &body[..count];
            let bytes = encode(&call(body), 9);
            let head = bytes.first_chunk().expect("a head");
            assert_eq!(length(head), Ok(bytes.len()));
            let read = decode(&bytes).expect("a message");
            assert_eq!((read.kind, read.serial, read.reply_to), (Kind::Call, 9, None));
            assert_eq!(read.path.as_deref(), Some("/org/example"));
            assert_eq!(read.member.as_deref(), Some("Do"));
            assert_eq!(read.body, body);
        }
    }

    /// The example of a method call as `dbus-send` writes it, in the other byte order.
    #[test]
    fn the_other_byte_order() {
        let mut bytes = vec![b'B', 3, 1, 1, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0, 31];
        bytes.extend([5, 1, b'u', 0, 0, 0, 0, 9]);
        bytes.extend([8, 1, b'g', 0, 1, b's', 0, 0]);
        bytes.extend([4, 1, b's', 0, 0, 0, 0, 6, b'o', b'r', b'g', b'.', b'x', b'y', 0, 0]);
        // The last padding is not of the array.
        bytes[15] = 31;
        bytes.extend([0, 0, 0, 2, b'n', b'o', 0]);
        let read = decode(&bytes).expect("a message");
        assert_eq!((read.kind, read.reply_to, read.error.as_deref()), (Kind::Error, Some(9), Some("org.xy")));
        assert_eq!(read.body, [Value::text("no")]);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let whole = encode(&call(&[Value::text("docker")]), 1);
        (0..whole.len()).for_each(|end| assert!(decode(&whole[..end]).is_err(), "{end}"));
        let mut long = *whole.first_chunk::<HEAD>().expect("a head");
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(length(&long), Err(Malformed("a message that is too long")));
        long[3] = 2;
        assert!(length(&long).is_err());
    }

    #[test]
    fn values_of_unknown_types_end_the_body() {
        let mut bytes = encode(&call(&[Value::text("a"), Value::U32(1)]), 1);
        let at = bytes.windows(2).position(|two| two == b"su").expect("the signature");
        bytes[at + 1] = b'x';
        assert_eq!(decode(&bytes).expect("a message").body, [Value::text("a")]);
    }
}
