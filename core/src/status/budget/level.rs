//! Finds who gives how much: the largest first, down to a level common to all. Pure.

use super::step::Piece;

/// Something that can be made smaller.
pub(super) struct Item {
    /// Its bytes now.
    pub(super) bytes: usize,
    /// What may be cut from it, in order.
    pub(super) pieces: Vec<Piece>,
    in_pieces: usize,
}

impl Item {
    pub(super) fn new(bytes: usize, pieces: Vec<Piece>) -> Self {
        let in_pieces = pieces.iter().map(|piece| piece.bytes).sum();
        Self { bytes, pieces, in_pieces }
    }

    /// Bytes saved when the item is cut down to the level, or as far as its pieces go. Grows as the level sinks.
    fn saved(&self, level: usize) -> usize {
        let need = self.bytes.saturating_sub(level);
        if need == 0 || need >= self.in_pieces {
            return if need == 0 { 0 } else { self.in_pieces };
        }
        let mut saved = 0;
        for piece in &self.pieces {
            if saved >= need {
                break;
            }
            saved += if piece.is_divisible() { piece.bytes.min(need - saved) } else { piece.bytes };
        }
        saved
    }
}

/// The level of each item: the highest with which `excess` bytes are saved, 0 if none is low enough. Where not all items
/// need to go down the last byte, the first ones stay one higher, so that of many equal items only some lose a whole piece.
pub(super) fn levels(items: &[Item], excess: usize) -> Vec<usize> {
    let saved = |level: usize| items.iter().map(|item| item.saved(level)).sum::<usize>();
    if saved(0) <= excess {
        return vec![0; items.len()];
    }
    let (mut enough, mut too_high) = (0, items.iter().map(|item| item.bytes).max().unwrap_or(0));
    while enough + 1 < too_high {
        let middle = usize::midpoint(enough, too_high);
        if saved(middle) >= excess { enough = middle } else { too_high = middle }
    }
    let mut levels = vec![enough + 1; items.len()];
    let mut total = saved(enough + 1);
    for (item, level) in items.iter().zip(&mut levels).rev() {
        if total >= excess {
            break;
        }
        total = total + item.saved(enough) - item.saved(*level);
        *level = enough;
    }
    levels
}
