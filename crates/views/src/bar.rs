// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bars that show for whom requests waited.

use crate::look::CLASSES;
use crate::look::Look;

/// Divides a number of cells among parts, so that all are used: the largest remainders are rounded up. All are 0 where
/// the parts are.
pub fn apportion(parts: &[u128], cells: u32) -> Vec<u32> {
    let whole: u128 = parts.iter().sum();
    if whole == 0 {
        return vec![0; parts.len()];
    }
    let exact = |part: &u128| *part as f64 * f64::from(cells) / whole as f64;
    let mut divided: Vec<u32> = parts.iter().map(|part| exact(part) as u32).collect();
    let mut places: Vec<usize> = (0..parts.len()).collect();
    places.sort_by(|a, b| {
        let rest = |place: usize| exact(&parts[place]).fract();
        rest(*b).total_cmp(&rest(*a)).then(a.cmp(b))
    });
    let used: u32 = divided.iter().sum();
    for place in places.iter().take(cells.saturating_sub(used) as usize) {
        divided[*place] += 1;
    }
    divided
}

/// Returns a bar of shares (client, nginx, upstream, wait) with this number of cells; blank where nothing is known.
pub fn bar(shares: [u128; 4], cells: u32, look: Look) -> String {
    let divided = apportion(&shares, cells);
    if divided.iter().all(|cells| *cells == 0) {
        return " ".repeat(cells as usize);
    }
    let parts = CLASSES.into_iter().zip(divided).filter(|(_, n)| *n > 0);
    parts
        .map(|(class, n)| {
            let glyphs = look.glyph(class).to_string().repeat(n as usize);
            look.of_class(class, &glyphs)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::apportion;
    use super::bar;
    use crate::look::Look;

    /// Check that all cells are used, and that the largest remainders are rounded up.
    #[test]
    fn apportioned() {
        for (parts, expected) in [
            (&[1_u128, 1, 1, 1][..], &[3, 3, 2, 2][..]),
            (&[0, 0, 7, 0], &[0, 0, 10, 0]),
            (&[5, 1, 93, 1], &[1, 0, 9, 0]),
            (&[0, 0], &[0, 0]),
            (&[u128::MAX / 2, u128::MAX / 2], &[5, 5]),
        ] {
            assert_eq!(apportion(parts, 10), expected);
        }
    }

    /// Check a bar in glyphs, letters and colours.
    #[test]
    fn drawn() {
        let look = Look {
            colour: false,
            ascii: false,
            width: 80,
        };
        let ascii = Look {
            ascii: true,
            ..look
        };
        let coloured = Look {
            colour: true,
            ..ascii
        };
        assert_eq!(bar([1, 1, 7, 1], 10, look), "░▓███████▒");
        assert_eq!(bar([1, 1, 7, 1], 10, ascii), "cnuuuuuuuw");
        assert_eq!(bar([0, 1, 0, 0], 2, coloured), "\x1b[33mnn\x1b[0m");
        assert_eq!(bar([0; 4], 3, look), "   ");
    }
}
