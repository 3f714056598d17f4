//! Layouts as bytes: what an `Opened` event and a snapshot carry.

use tmomi_engine::ids::TierIndex;
use tmomi_engine::layout::{Layout, LayoutError, LayoutSpec, RowSpec, SectionSpec};

use crate::wire::{self, Decode, Encode};

/// The version that [`encode`] writes; the first byte.
const VERSION: u8 = 1;
/// Bytes of an encoded layout at most: sixteen million seats in rows as small as they may be.
pub const LAYOUT_BYTES_MAX: usize = 1 << 29;

/// Bytes that are no layout.
#[derive(Debug, thiserror::Error)]
pub enum LayoutCodecError {
    /// Written by a newer version.
    #[error("the layout has version {0}, this program knows {VERSION}")]
    Version(u8),
    /// Not an encoding, or larger than [`LAYOUT_BYTES_MAX`].
    #[error("the layout is damaged: {0}")]
    Damaged(String),
    /// An encoding of a layout that no house has.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

#[derive(Encode, Decode)]
enum Section {
    Uniform { rows: u32, seats_per_row: u32, tier: u16, first_distance: u32 },
    Rows(Vec<Row>),
    General { places: u32, tier: u16 },
}

#[derive(Encode, Decode)]
struct Row {
    distance: u32,
    runs: Vec<(u16, u16)>,
}

/// The layout as bytes.
pub fn encode(spec: &LayoutSpec) -> Vec<u8> {
    let sections: Vec<Section> = spec.sections.iter().map(section_of).collect();
    let mut bytes = vec![VERSION];
    wire::encode_into(&sections, &mut bytes);
    bytes
}

/// The layout that [`encode`] made `bytes` of.
///
/// # Errors
///
/// [`LayoutCodecError`] if the bytes are of another version or damaged. Whether the layout can be
/// built is not looked at.
pub fn decode(bytes: &[u8]) -> Result<LayoutSpec, LayoutCodecError> {
    let damaged = |why: &str| LayoutCodecError::Damaged(why.to_owned());
    if bytes.len() > LAYOUT_BYTES_MAX {
        return Err(damaged("too long"));
    }
    let (version, rest) = bytes.split_first().ok_or_else(|| damaged("empty"))?;
    if *version != VERSION {
        return Err(LayoutCodecError::Version(*version));
    }
    let sections: Vec<Section> =
        wire::decode_all(rest).map_err(|error| damaged(&error.to_string()))?;
    Ok(LayoutSpec { sections: sections.into_iter().map(spec_of).collect() })
}

/// Decodes and builds.
///
/// # Errors
///
/// As [`decode`], and if the layout cannot be built.
pub fn build(bytes: &[u8]) -> Result<Layout, LayoutCodecError> {
    Ok(Layout::build(decode(bytes)?)?)
}

fn section_of(spec: &SectionSpec) -> Section {
    match *spec {
        SectionSpec::Uniform { rows, seats_per_row, tier: TierIndex(tier), first_distance } => {
            Section::Uniform { rows, seats_per_row, tier, first_distance }
        }
        SectionSpec::General { places, tier: TierIndex(tier) } => Section::General { places, tier },
        SectionSpec::Rows(ref rows) => {
            let row = |row: &RowSpec| Row {
                distance: row.distance,
                runs: row.runs.iter().map(|(seats, tier)| (*seats, tier.0)).collect(),
            };
            Section::Rows(rows.iter().map(row).collect())
        }
    }
}

fn spec_of(section: Section) -> SectionSpec {
    match section {
        Section::Uniform { rows, seats_per_row, tier, first_distance } => {
            let tier = TierIndex(tier);
            SectionSpec::Uniform { rows, seats_per_row, tier, first_distance }
        }
        Section::General { places, tier } => SectionSpec::General { places, tier: TierIndex(tier) },
        Section::Rows(rows) => {
            let row = |row: Row| RowSpec {
                distance: row.distance,
                runs: row.runs.into_iter().map(|(seats, tier)| (seats, TierIndex(tier))).collect(),
            };
            SectionSpec::Rows(rows.into_iter().map(row).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> LayoutSpec {
        let tier = TierIndex(2);
        let runs = vec![(3, TierIndex(0)), (70, tier)];
        LayoutSpec {
            sections: vec![
                SectionSpec::Uniform { rows: 9, seats_per_row: 50, tier, first_distance: 7 },
                SectionSpec::Rows(vec![RowSpec { runs, distance: 4 }]),
                SectionSpec::General { places: 300, tier: TierIndex(1) },
            ],
        }
    }

    #[test]
    fn a_layout_comes_back() {
        let bytes = encode(&spec());
        assert_eq!(decode(&bytes).expect("as encoded"), spec());
        assert_eq!(build(&bytes).expect("as encoded").capacity(), 450 + 73 + 300);
    }

    #[test]
    fn what_is_no_layout_is_refused_and_allocates_little() {
        let bytes = encode(&spec());
        assert!(matches!(decode(&[]), Err(LayoutCodecError::Damaged(_))));
        assert!(matches!(decode(&[9, 0]), Err(LayoutCodecError::Version(9))));
        for end in 1..bytes.len() {
            assert!(matches!(decode(&bytes[..end]), Err(LayoutCodecError::Damaged(_))), "{end}");
        }
        let mut endless = bytes.clone();
        endless[1..9].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(decode(&endless), Err(LayoutCodecError::Damaged(_))));
        let empty = encode(&LayoutSpec::default());
        assert!(matches!(build(&empty), Err(LayoutCodecError::Layout(_))));
    }
}
