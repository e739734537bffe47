//! As much of protobuf as it takes to see whether an ONNX file is whole, and its weights numbers.

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A number of seven bits a byte.
    Number(u64),
    /// Four or eight bytes, or as many as the field says: a text, numbers in a row, a message.
    Bytes(&'a [u8]),
}

/// The fields of a message in their order, by number.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Those of a message's bytes.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = field(&mut self.0);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Value<'a>), &'static str> {
    let torn = "its end is missing: truncated?";
    let tag = varint(rest).ok_or(torn)?;
    let length = match tag & 7 {
        0 => return Ok((tag >> 3, Value::Number(varint(rest).ok_or(torn)?))),
        1 => 8,
        2 => varint(rest).ok_or(torn)?,
        5 => 4,
        _ => return Err("it is no protobuf message"),
    };
    let length = usize::try_from(length).map_err(|_| torn)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(torn)?;
    *rest = after;
    Ok((tag >> 3, Value::Bytes(bytes)))
}

/// A number of seven bits a byte, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// A tensor of numbers that are not all finite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotFinite {
    /// Its name.
    pub(super) name: String,
    /// Whether some are no numbers at all, not infinite only: masks may be infinite.
    pub(super) nan: bool,
    /// How many of them.
    pub(super) count: usize,
    /// How many numbers it has.
    pub(super) of: usize,
}

/// The stored weights of a model's graph (`initializer`) that are not finite. What cannot be
/// understood is passed over: the runtime says what is wrong with it.
pub(super) fn not_finite(model: &[u8]) -> Vec<NotFinite> {
    let graph = messages(model, 7);
    let weights = graph.into_iter().flat_map(|graph| messages(graph, 5));
    weights.filter_map(of_tensor).collect()
}

/// The messages under a field's number.
fn messages(bytes: &[u8], number: u64) -> Vec<&[u8]> {
    let of = |(found, value): (u64, _)| match value {
        Value::Bytes(bytes) if found == number => Some(bytes),
        _ => None,
    };
    let whole = Fields::of(bytes).map_while(Result::ok);
    whole.filter_map(of).collect()
}

/// `TensorProto`: `data_type` 2, `float_data` 4, `name` 8, `raw_data` 9, `double_data` 10.
fn of_tensor(tensor: &[u8]) -> Option<NotFinite> {
    let (mut kind, mut name, mut data) = (0, String::new(), Vec::new());
    for field in Fields::of(tensor) {
        match field.ok()? {
            (2, Value::Number(number)) => kind = number,
            (8, Value::Bytes(text)) => name = String::from_utf8_lossy(text).into_owned(),
            (4 | 9 | 10, Value::Bytes(bytes)) => data.push(bytes),
            _ => {}
        }
    }
    // FLOAT, FLOAT16, DOUBLE, BFLOAT16: bytes of a number, bits of its exponent and of what follows.
    let (size, exponent, fraction) = match kind {
        1 => (4, 0x7f80_0000, 0x007f_ffff),
        10 => (2, 0x7c00, 0x03ff),
        11 => (8, 0x7ff0_0000_0000_0000, 0x000f_ffff_ffff_ffff),
        16 => (2, 0x7f80, 0x007f),
        _ => return None,
    };
    let mut found = NotFinite {
        name,
        nan: false,
        count: 0,
        of: 0,
    };
    for number in data.iter().flat_map(|bytes| bytes.chunks_exact(size)) {
        let bits = number
            .iter()
            .rev()
            .fold(0u64, |bits, &byte| (bits << 8) | u64::from(byte));
        found.of += 1;
        if bits & exponent == exponent {
            found.count += 1;
            found.nan |= bits & fraction != 0;
        }
    }
    (found.count > 0).then_some(found)
}
