//! LIKE: `%` for any characters, `_` for one, `\` before either means itself.

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// The pieces between the `%`.
    pieces: Vec<Piece>,
    /// Only ASCII letters fold: what `collate "C"` makes of ILIKE.
    fold: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    /// None is `_`.
    chars: Vec<Option<char>>,
    /// The same where there is no `_`.
    text: Option<String>,
}

impl Pattern {
    /// None if the pattern ends within an escape, which PostgreSQL refuses.
    pub(super) fn parse(text: &str, fold: bool) -> Option<Self> {
        let folded = if fold { text.to_ascii_lowercase() } else { text.to_owned() };
        let mut pieces = vec![Vec::new()];
        let mut chars = folded.chars();
        while let Some(c) = chars.next() {
            let last = pieces.last_mut()?;
            match c {
                '%' => pieces.push(Vec::new()),
                '_' => last.push(None),
                '\\' => last.push(Some(chars.next()?)),
                c => last.push(Some(c)),
            }
        }
        let piece = |chars: Vec<Option<char>>| Piece { text: chars.iter().copied().collect(), chars };
        Some(Self { pieces: pieces.into_iter().map(piece).collect(), fold })
    }

    /// Every three bytes that follow each other in each text that matches.
    pub(super) fn grams(&self) -> Vec<[u8; 3]> {
        let runs = self.pieces.iter().flat_map(|piece| piece.chars.split(Option::is_none));
        let mut grams = Vec::new();
        for run in runs {
            let text: String = run.iter().flatten().collect();
            grams.extend(text.as_bytes().windows(3).filter_map(|gram| <[u8; 3]>::try_from(gram).ok()));
        }
        grams
    }

    /// Whether the whole text matches.
    pub(super) fn matches(&self, text: &str) -> bool {
        if self.fold {
            return self.matches_folded(&text.to_ascii_lowercase());
        }
        self.matches_folded(text)
    }

    fn matches_folded(&self, text: &str) -> bool {
        let Some((first, rest)) = self.pieces.split_first() else { return false };
        let Some(mut text) = first.prefix(text) else { return false };
        let Some((last, middle)) = rest.split_last() else { return text.is_empty() };
        // The leftmost match of each piece leaves the most room for the others.
        for piece in middle {
            match piece.find(text) {
                Some(after) => text = after,
                None => return false,
            }
        }
        last.ends(text)
    }
}

impl Piece {
    /// What follows it if the text begins with it.
    fn prefix<'t>(&self, text: &'t str) -> Option<&'t str> {
        if let Some(own) = &self.text {
            return text.strip_prefix(own.as_str());
        }
        let mut chars = text.chars();
        for wanted in &self.chars {
            let found = chars.next()?;
            if wanted.is_some_and(|w| w != found) {
                return None;
            }
        }
        Some(chars.as_str())
    }

    /// What follows its leftmost occurrence.
    fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        if let Some(own) = &self.text {
            return text.find(own.as_str()).map(|at| &text[at + own.len()..]);
        }
        let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        starts.map(|at| &text[at..]).find_map(|tail| self.prefix(tail))
    }

    fn ends(&self, text: &str) -> bool {
        if let Some(own) = &self.text {
            return text.ends_with(own.as_str());
        }
        let count = self.chars.len();
        let tail = text.char_indices().rev().nth(count - 1).map(|(at, _)| &text[at..]);
        tail.is_some_and(|tail| self.prefix(tail) == Some(""))
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns() {
        for (pattern, yes, no) in [
            ("", &[""][..], &["a"][..]),
            ("abc", &["abc"], &["ab", "abcd", "xabc"]),
            ("a%", &["a", "ab"], &["", "ba"]),
            ("%a", &["a", "ba"], &["", "ab"]),
            ("%", &["", "äb\n"], &[]),
            ("_", &["a", "ß", "💧"], &["", "ab"]),
            ("%_", &["a", "ab"], &[""]),
            ("a%b%a", &["aba", "axbya"], &["ab", "abb"]),
            ("%ab%ab", &["abab", "ab ab"], &["ab", "abba"]),
            ("a\\%", &["a%"], &["ab", "a\\%"]),
            ("%_b_%", &["abc", "xxabcxx"], &["ab", "bc"]),
            ("\\_\\\\", &["_\\"], &["a\\"]),
        ] {
            let compiled = Pattern::parse(pattern, false).unwrap();
            yes.iter().for_each(|t| assert!(compiled.matches(t), "{pattern} {t}"));
            no.iter().for_each(|t| assert!(!compiled.matches(t), "{pattern} {t}"));
        }
        assert!(Pattern::parse("a\\", false).is_none());
        let grams = Pattern::parse("%ab_cde%Fgh\\%i%", true).unwrap().grams();
        assert_eq!(grams, [*b"cde", *b"fgh", *b"gh%", *b"h%i"]);
        let folded = Pattern::parse("%Ä B%", true).unwrap();
        assert!(folded.matches("xÄ by") && !folded.matches("xä by"), "only ASCII letters fold");
    }
}
