//! What a caption says of a scene.

/// Words that have no plural of their own to count with.
const UNCOUNTED: [&str; 1] = ["swords"];

/// `two churches`; nothing for a word that is a plural already.
pub(super) fn counted(noun: &str, count: usize) -> Option<String> {
    let number = match count {
        2 => "two",
        3 => "three",
        _ => return None,
    };
    if UNCOUNTED.contains(&noun) {
        return None;
    }
    let plural = match noun {
        "fish" => noun.to_owned(),
        _ if noun.ends_with("ch") || noun.ends_with('s') => format!("{noun}es"),
        _ => match noun.strip_suffix("ry").or_else(|| noun.strip_suffix("ly")) {
            Some(_) => format!("{}ies", &noun[..noun.len() - 1]),
            None => format!("{noun}s"),
        },
    };
    Some(format!("{number} {plural}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_are_english() {
        for (noun, plural) in [
            ("church", "two churches"),
            ("butterfly", "two butterflies"),
            ("strawberry", "two strawberries"),
            ("cactus", "two cactuses"),
            ("fish", "two fish"),
            ("golf flag", "two golf flags"),
            ("house", "two houses"),
        ] {
            assert_eq!(counted(noun, 2).as_deref(), Some(plural));
        }
        assert_eq!(counted("swords", 2), None);
        assert_eq!(counted("cat", 4), None);
    }
}
