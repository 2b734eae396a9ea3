//! The VIN of mode 09 on a K-line: five messages of four bytes, counted from 1 (SAE J1979; ISO 14230-4).

/// Number of messages.
const MESSAGES: usize = 5;
/// Most ECUs whose messages are kept: 0x33 reaches the emission-related ones, of which there are at most
/// eight (ISO 15031-5).
const MAX_ECUS: usize = 8;

/// One message's part of the VIN field.
type Piece = [u8; 4];

/// The messages of one ECU.
#[derive(Debug)]
struct EcuPieces {
    source: u8,
    pieces: [Option<Piece>; MESSAGES],
    /// A message contradicted another one.
    is_contradictory: bool,
}

/// The messages of one answer, by ECU and counter.
#[derive(Debug, Default)]
pub(super) struct VinPieces {
    ecus: Vec<EcuPieces>,
}

impl VinPieces {
    /// Takes the message with the counter `count`. A repeated message counts once.
    pub(super) fn insert(&mut self, source: u8, count: u8, piece: Piece) {
        let is_known = self.ecus.iter().any(|ecu| ecu.source == source);
        if !is_known && self.ecus.len() < MAX_ECUS {
            self.ecus.push(EcuPieces { source, pieces: [None; MESSAGES], is_contradictory: false });
        }
        let Some(ecu) = self.ecus.iter_mut().find(|ecu| ecu.source == source) else { return };
        match usize::from(count).checked_sub(1).and_then(|index| ecu.pieces.get_mut(index)) {
            Some(place) => ecu.is_contradictory |= *place.get_or_insert(piece) != piece,
            None => ecu.is_contradictory = true,
        }
    }

    /// Returns the 20 bytes of the field of each ECU that sent all messages, with the ECU's address.
    ///
    /// A counter that is not 1 to 5, or two messages with one counter and different bytes, leave no field of
    /// that ECU: more than one answer is mixed. So the fields are known only when no answer can follow.
    pub(super) fn fields(&self) -> impl Iterator<Item = (u8, Vec<u8>)> {
        self.ecus.iter().filter(|ecu| !ecu.is_contradictory).filter_map(|ecu| {
            let pieces: Option<Vec<Piece>> = ecu.pieces.iter().copied().collect();
            Some((ecu.source, pieces?.concat()))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The pieces of a field whose every byte is `ecu`, so that a mixture shows.
    fn pieces(ecu: u8) -> Vec<(u8, u8, Piece)> {
        (1..=5).map(|count| (ecu, count, [ecu, ecu, ecu, count])).collect()
    }

    fn field(ecu: u8) -> Vec<u8> {
        pieces(ecu).iter().flat_map(|(.., piece)| *piece).collect()
    }

    fn insert_all(messages: &[(u8, u8, Piece)]) -> Vec<Vec<u8>> {
        let mut all = VinPieces::default();
        messages.iter().for_each(|(source, count, piece)| all.insert(*source, *count, *piece));
        all.fields().map(|(_, field)| field).collect()
    }

    #[test]
    fn a_contradiction_or_a_foreign_counter_leaves_no_vin() {
        let mut contradiction = pieces(7);
        contradiction.insert(2, (7, 2, [9; 4]));
        assert_eq!(insert_all(&contradiction), Vec::<Vec<u8>>::new());
        for count in [0, 6, 0xFF] {
            let mut foreign = pieces(7);
            foreign.insert(0, (7, count, [0; 4]));
            assert_eq!(insert_all(&foreign), Vec::<Vec<u8>>::new());
        }
    }

    proptest! {
        #[test]
        fn the_messages_of_two_ecus_in_any_order_are_never_mixed(
            order in Just([pieces(1), pieces(2), pieces(1), pieces(2)].concat()).prop_shuffle(),
            kept in 0..=20usize,
        ) {
            let order = &order[..kept];
            let found = insert_all(order);
            for ecu in [1, 2] {
                let counts: std::collections::BTreeSet<_> =
                    order.iter().filter(|(source, ..)| *source == ecu).map(|(_, count, _)| count).collect();
                prop_assert_eq!(found.contains(&field(ecu)), counts.len() == MESSAGES);
            }
            prop_assert!(found.iter().all(|found| [field(1), field(2)].contains(found)));
        }

        #[test]
        fn messages_without_a_source_from_two_ecus_give_no_vin(
            order in Just([pieces(1), pieces(2)].concat()).prop_shuffle(),
        ) {
            let unknown: Vec<_> = order.iter().map(|(_, count, piece)| (0x33, *count, *piece)).collect();
            prop_assert_eq!(insert_all(&unknown), Vec::<Vec<u8>>::new());
        }
    }
}
