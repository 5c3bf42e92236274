//! The typed values of GGUF metadata, and the bounds-checked reader under the header parser.

/// A metadata value; the sixteen wire types are folded into what a reader asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// u8, u16, u32, u64, and signed integers that are not negative.
    Unsigned(u64),
    /// Negative integers.
    Signed(i64),
    /// f32 or f64.
    Float(f64),
    /// bool.
    Flag(bool),
    /// A string.
    Text(String),
    /// An array of integers.
    Integers(Vec<i64>),
    /// An array of floats.
    Floats(Vec<f32>),
    /// An array of booleans.
    Flags(Vec<bool>),
    /// An array of strings.
    Texts(Vec<String>),
}

impl Value {
    /// The value as a count.
    pub fn unsigned(&self) -> Option<u64> {
        if let Value::Unsigned(n) = self { Some(*n) } else { None }
    }

    /// The value as a number of any kind.
    pub fn float(&self) -> Option<f64> {
        match self {
            Value::Float(f) => Some(*f),
            Value::Unsigned(n) => Some(*n as f64),
            Value::Signed(n) => Some(*n as f64),
            _ => None,
        }
    }

    /// The value as true or false.
    pub fn flag(&self) -> Option<bool> {
        if let Value::Flag(b) = self { Some(*b) } else { None }
    }

    /// The value as text.
    pub fn text(&self) -> Option<&str> {
        if let Value::Text(s) = self { Some(s) } else { None }
    }

    /// The value as a list of texts.
    pub fn texts(&self) -> Option<&[String]> {
        if let Value::Texts(list) = self { Some(list) } else { None }
    }

    /// The value as a list of integers.
    pub fn integers(&self) -> Option<&[i64]> {
        if let Value::Integers(list) = self { Some(list) } else { None }
    }

    /// The booleans of an array of them.
    pub fn flags(&self) -> Option<&[bool]> {
        if let Value::Flags(list) = self { Some(list) } else { None }
    }

    /// The value as a list of floats.
    pub fn floats(&self) -> Option<&[f32]> {
        if let Value::Floats(list) = self { Some(list) } else { None }
    }
}

/// Wire types of a value, and the bytes an element takes at least.
#[derive(Clone, Copy)]
enum Wire {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Wire {
    const ALL: [Wire; 13] = [
        Wire::U8,
        Wire::I8,
        Wire::U16,
        Wire::I16,
        Wire::U32,
        Wire::I32,
        Wire::F32,
        Wire::Bool,
        Wire::String,
        Wire::Array,
        Wire::U64,
        Wire::I64,
        Wire::F64,
    ];

    fn least_bytes(self) -> u64 {
        match self {
            Wire::U8 | Wire::I8 | Wire::Bool => 1,
            Wire::U16 | Wire::I16 => 2,
            Wire::U32 | Wire::I32 | Wire::F32 => 4,
            _ => 8,
        }
    }
}

/// A cursor over the header that never reads past the end.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> u64 {
        self.position as u64
    }

    fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8], String> {
        let left = &self.bytes[self.position..];
        let taken = usize::try_from(count).ok().and_then(|count| left.get(..count)).ok_or_else(|| {
            format!("the file ends within {what} at byte {}: it is truncated or corrupt", self.position)
        })?;
        self.position += taken.len();
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, String> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `least` bytes each, refused when the file cannot hold them.
    pub(super) fn count(&mut self, what: &str, least: u64) -> Result<usize, String> {
        let count = self.u64(what)?;
        let left = (self.bytes.len() - self.position) as u64;
        if count > left / least {
            return Err(format!("the header claims {count} {what}, more than the file can hold"));
        }
        Ok(count as usize)
    }

    pub(super) fn string(&mut self, what: &str) -> Result<String, String> {
        let length = self.u64(what)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| format!("{what} is not UTF-8"))
    }

    /// A type and a value of it.
    pub(super) fn value(&mut self, key: &str) -> Result<Value, String> {
        match self.wire(key)? {
            Wire::Array => self.list(key),
            wire => self.scalar(wire, key),
        }
    }

    fn wire(&mut self, key: &str) -> Result<Wire, String> {
        let id = self.u32(key)?;
        let wire = Wire::ALL.get(id as usize).copied();
        wire.ok_or_else(|| format!("metadata key `{key}` has the unknown value type {id}"))
    }

    fn scalar(&mut self, wire: Wire, key: &str) -> Result<Value, String> {
        Ok(match wire {
            Wire::F32 => Value::Float(f32::from_le_bytes(self.array(key)?).into()),
            Wire::F64 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            Wire::Bool => Value::Flag(self.array::<1>(key)?[0] != 0),
            Wire::String => Value::Text(self.string(key)?),
            Wire::U64 => Value::Unsigned(self.u64(key)?),
            _ => match self.integer(wire, key)? {
                n if n >= 0 => Value::Unsigned(n as u64),
                n => Value::Signed(n),
            },
        })
    }

    fn integer(&mut self, wire: Wire, key: &str) -> Result<i64, String> {
        Ok(match wire {
            Wire::U8 => self.array::<1>(key)?[0].into(),
            Wire::I8 => i8::from_le_bytes(self.array(key)?).into(),
            Wire::U16 => u16::from_le_bytes(self.array(key)?).into(),
            Wire::I16 => i16::from_le_bytes(self.array(key)?).into(),
            Wire::U32 => self.u32(key)?.into(),
            Wire::I32 => i32::from_le_bytes(self.array(key)?).into(),
            Wire::U64 => i64::try_from(self.u64(key)?)
                .map_err(|_| format!("metadata key `{key}` holds a number beyond 63 bits"))?,
            Wire::I64 => i64::from_le_bytes(self.array(key)?),
            Wire::F32 | Wire::F64 | Wire::Bool | Wire::String | Wire::Array => {
                return Err(format!("metadata key `{key}` is not an integer"));
            }
        })
    }

    fn list(&mut self, key: &str) -> Result<Value, String> {
        let wire = self.wire(key)?;
        let count = self.count(&format!("elements in `{key}`"), wire.least_bytes())?;
        let elements = 0..count;
        Ok(match wire {
            Wire::Array => {
                return Err(format!("metadata key `{key}` is an array of arrays, which is not read"));
            }
            Wire::String => Value::Texts(elements.map(|_| self.string(key)).collect::<Result<_, _>>()?),
            Wire::Bool => Value::Flags(
                elements.map(|_| Ok(self.array::<1>(key)?[0] != 0)).collect::<Result<_, String>>()?,
            ),
            Wire::F32 => Value::Floats(
                elements.map(|_| self.array(key).map(f32::from_le_bytes)).collect::<Result<_, _>>()?,
            ),
            Wire::F64 => Value::Floats(
                elements
                    .map(|_| self.array(key).map(|b| f64::from_le_bytes(b) as f32))
                    .collect::<Result<_, _>>()?,
            ),
            _ => Value::Integers(elements.map(|_| self.integer(wire, key)).collect::<Result<_, _>>()?),
        })
    }
}
