//! Values as bytes.

/// Values as bytes, each with its length before it. Short ones lie in the place itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packed {
    Inline(u8, [u8; 30]),
    Heap(Box<[u8]>),
}

impl Default for Packed {
    fn default() -> Self {
        Self::Inline(0, [0; 30])
    }
}

impl Packed {
    /// These values.
    pub fn of<'v>(values: impl Iterator<Item = &'v str>) -> Self {
        let mut bytes = Vec::new();
        for value in values {
            match u16::try_from(value.len()) {
                Ok(short) if short < u16::MAX => bytes.extend(short.to_le_bytes()),
                _ => {
                    bytes.extend(u16::MAX.to_le_bytes());
                    bytes.extend((value.len() as u64).to_le_bytes());
                }
            }
            bytes.extend(value.as_bytes());
        }
        let mut inline = [0; 30];
        match (inline.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(&bytes);
                Self::Inline(length, inline)
            }
            _ => Self::Heap(bytes.into()),
        }
    }

    /// Whether these are the values.
    pub fn is<'v>(&self, values: impl Iterator<Item = &'v str>) -> bool {
        let mut rest: &[u8] = match self {
            Self::Inline(length, bytes) => &bytes[..usize::from(*length)],
            Self::Heap(bytes) => bytes,
        };
        for value in values {
            let Some((head, tail)) = rest.split_first_chunk::<2>() else { return false };
            let (length, tail) = match u16::from_le_bytes(*head) {
                u16::MAX => match tail.split_first_chunk::<8>() {
                    Some((long, tail)) => (u64::from_le_bytes(*long), tail),
                    None => return false,
                },
                short => (u64::from(short), tail),
            };
            if length != value.len() as u64 || !tail.starts_with(value.as_bytes()) {
                return false;
            }
            rest = &tail[value.len()..];
        }
        rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_between_values_count() {
        let packed = Packed::of(["ab", "c"].into_iter());
        assert!(packed.is(["ab", "c"].into_iter()));
        assert!(!packed.is(["a", "bc"].into_iter()) && !packed.is(["ab"].into_iter()));
        assert!(!packed.is(["ab", "c", ""].into_iter()));
        let long = "x".repeat(70_000);
        assert!(Packed::of([long.as_str(), "y"].into_iter()).is([long.as_str(), "y"].into_iter()));
    }
}
