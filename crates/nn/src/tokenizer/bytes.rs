//! The alphabet of byte-level BPE: one printable character for each byte (GPT-2, Radford et al.
//! 2019).

use std::sync::LazyLock;

/// What a token ends with when it ends a word.
pub(super) const WORD_END: &str = "</w>";

/// The bytes in the order of CLIP's first 256 ids: the printable ones of Latin-1, then the others.
pub(super) fn in_vocabulary_order() -> impl Iterator<Item = u8> {
    (0..=255u8)
        .filter(|b| printable(*b))
        .chain((0..=255u8).filter(|b| !printable(*b)))
}

fn printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// The character that stands for each byte: itself where printable, otherwise the next free one
/// from U+0100 on.
static CHARACTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut free = '\u{100}'..='\u{1ff}';
    std::array::from_fn(|b| {
        let byte = b as u8;
        if printable(byte) {
            char::from(byte)
        } else {
            free.next().unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    })
});

pub(super) fn character(byte: u8) -> char {
    CHARACTERS[usize::from(byte)]
}

/// The byte that a character stands for.
fn byte(character: char) -> Option<u8> {
    match u32::from(character) {
        c @ 0..=0xff => u8::try_from(c).ok().filter(|b| printable(*b)),
        0x100..=0x1ff => CHARACTERS
            .iter()
            .position(|c| *c == character)
            .and_then(|b| u8::try_from(b).ok()),
        _ => None,
    }
}

/// Appends what a token stands for, `</w>` as a space.
pub(super) fn push_token(out: &mut Vec<u8>, token: &str) {
    let stem = token.strip_suffix(WORD_END);
    for c in stem.unwrap_or(token).chars() {
        match byte(c) {
            Some(b) => out.push(b),
            // Not a byte-level token; shown as it is.
            None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    if stem.is_some() {
        out.push(b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        let order: Vec<u8> = in_vocabulary_order().collect();
        assert_eq!(order.len(), 256);
        // The first ids of CLIP's vocab.json, and the first of the bytes that cannot be printed
        // (188).
        assert_eq!(
            (
                character(order[0]),
                character(order[94]),
                character(order[188])
            ),
            ('!', '¡', 'Ā')
        );
        for b in 0..=255u8 {
            assert_eq!(byte(character(b)), Some(b));
        }
        assert_eq!(
            (byte(' '), byte('\u{ad}'), byte('\u{1ff}'), byte('世')),
            (None, None, None, None)
        );
    }
}
