//! Places for labels, where none lies on another.

/// Height of a label's line.
pub(super) const LINE: f64 = 13.0;
/// Width of a letter of a label: all fonts for code are about as wide.
pub(super) const LETTER: f64 = 6.65;
/// What labels keep of each other.
const GAP: f64 = 2.0;
/// Beyond this a line leads from the mark to its label.
const NEAR: f64 = 14.0;

/// A rectangle of a drawing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

impl Area {
    /// Of `half` to each side of a point.
    pub(super) fn around((x, y): (f64, f64), half: f64) -> Self {
        Area { left: x - half, top: y - half, right: x + half, bottom: y + half }
    }

    fn meets(&self, other: &Area) -> bool {
        self.left < other.right + GAP
            && other.left < self.right + GAP
            && self.top < other.bottom
            && other.top < self.bottom
    }

    fn holds(&self, other: &Area) -> bool {
        self.left <= other.left
            && other.right <= self.right
            && self.top <= other.top
            && other.bottom <= self.bottom
    }

    fn nearest(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (x.clamp(self.left, self.right), y.clamp(self.top, self.bottom))
    }

    /// Whether the line between two points comes into it.
    fn crossed(&self, (from, to): Line) -> bool {
        // Clipped by each pair of sides (Liang and Barsky 1984).
        let (mut first, mut last) = (0.0_f64, 1.0_f64);
        for (at, along, low, high) in
            [(from.0, to.0 - from.0, self.left, self.right), (from.1, to.1 - from.1, self.top, self.bottom)]
        {
            if along.abs() < 1e-9 {
                if at < low || at > high {
                    return false;
                }
                continue;
            }
            let (enters, leaves) = ((low - at) / along, (high - at) / along);
            first = first.max(enters.min(leaves));
            last = last.min(enters.max(leaves));
        }
        first < last
    }
}

/// Its two ends.
pub(super) type Line = ((f64, f64), (f64, f64));

/// A label that is to stand by a mark.
pub(super) struct Wish {
    pub(super) text: String,
    pub(super) mark: (f64, f64),
}

/// Where a label stands, and the line that leads to it from its mark.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) area: Area,
    pub(super) leader: Option<Line>,
    distance: f64,
}

/// What is drawn already, and is better not written on.
pub(super) struct Drawn {
    pub(super) marks: Vec<Area>,
    pub(super) lines: Vec<Line>,
}

impl Drawn {
    /// How far out a label goes rather than stand here, with these labels placed.
    fn cost(&self, place: &Place, placed: &[Place]) -> f64 {
        let marks = self.marks.iter().filter(|mark| place.area.meets(mark)).count();
        let lines = self.lines.iter().filter(|&&line| place.area.crossed(line)).count();
        let leaders = placed.iter().filter(|other| place.is_crossed_with(other)).count();
        place.distance + 60.0 * marks as f64 + 12.0 * lines as f64 + 60.0 * leaders as f64
    }
}

impl Place {
    /// Whether the line to one of the two labels runs through the other.
    fn is_crossed_with(&self, other: &Place) -> bool {
        let crossed = |area: &Area, leader: Option<Line>| leader.is_some_and(|line| area.crossed(line));
        crossed(&self.area, other.leader) || crossed(&other.area, self.leader)
    }
}

/// A place for each wish, the first wishes first: within `frame`, on no other label, and off what is drawn where that can be
/// had nearby; `None` where all places up to `reach` from its mark are taken.
pub(super) fn place(wishes: &[Wish], drawn: &Drawn, frame: &Area, reach: f64) -> Vec<Option<Place>> {
    let mut placed: Vec<Place> = Vec::new();
    let mut find = |wish: &Wish| {
        let free = |place: &Place| {
            frame.holds(&place.area) && !placed.iter().any(|other| place.area.meets(&other.area))
        };
        let best = candidates(wish, reach)
            .filter(free)
            .map(|place| (drawn.cost(&place, &placed), place))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, place)| place);
        placed.extend(best.clone());
        best
    };
    wishes.iter().map(&mut find).collect()
}

/// Places around a mark.
fn candidates(wish: &Wish, reach: f64) -> impl Iterator<Item = Place> {
    const TURNS: i32 = 16;
    let distances = std::iter::successors(Some(8.0), |distance| Some(distance * 1.25));
    distances
        .take_while(move |&distance| distance < reach)
        .flat_map(move |distance| (0..TURNS).map(move |turn| (distance, f64::from(turn) / f64::from(TURNS))))
        .map(|(distance, turn)| beside(wish, distance, std::f64::consts::TAU * turn))
}

/// The place in a direction from a mark.
fn beside(wish: &Wish, distance: f64, angle: f64) -> Place {
    let (width, height) = (wish.text.chars().count() as f64 * LETTER, LINE);
    let x = wish.mark.0 + angle.cos() * (distance + width / 2.0);
    let y = wish.mark.1 - angle.sin() * (distance + height / 2.0);
    let area = Area {
        left: x - width / 2.0,
        top: y - height / 2.0,
        right: x + width / 2.0,
        bottom: y + height / 2.0,
    };
    let leader = (distance > NEAR).then(|| (wish.mark, area.nearest(wish.mark)));
    Place { area, leader, distance }
}

/// Heights for labels in a column that would like to stand at `wished`, ascending, a line apart and within `top` and
/// `bottom` if there is room.
pub(super) fn column(wished: &[f64], top: f64, bottom: f64) -> Vec<f64> {
    let mut at: Vec<f64> = Vec::with_capacity(wished.len());
    for &wish in wished {
        let least = at.last().map_or(top, |last| last + LINE + 1.0);
        at.push(wish.max(least));
    }
    let mut most = bottom;
    for height in at.iter_mut().rev() {
        *height = height.min(most);
        most = *height - LINE - 1.0;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Area = Area { left: 0.0, top: 0.0, right: 600.0, bottom: 400.0 };

    fn wishes(marks: &[(f64, f64)]) -> Vec<Wish> {
        marks.iter().enumerate().map(|(i, &mark)| Wish { text: format!("label number {i}"), mark }).collect()
    }

    fn drawn(marks: &[(f64, f64)]) -> Drawn {
        Drawn { marks: marks.iter().map(|&mark| Area::around(mark, 5.0)).collect(), lines: Vec::new() }
    }

    #[test]
    fn labels_of_a_crowd_are_apart_and_within_the_frame() {
        let crowd: Vec<(f64, f64)> =
            (0..20).map(|i| (300.0 + f64::from(i % 5) * 3.0, 200.0 + f64::from(i))).collect();
        let places: Vec<Place> =
            place(&wishes(&crowd), &drawn(&crowd), &FRAME, 260.0).into_iter().flatten().collect();
        assert_eq!(places.len(), 20);
        for (i, one) in places.iter().enumerate() {
            assert!(FRAME.holds(&one.area));
            assert!(!places[i + 1..].iter().any(|other| one.area.meets(&other.area)), "{one:?}");
        }
    }

    #[test]
    fn a_lone_label_is_near_and_off_its_mark() {
        let mark = (595.0, 3.0);
        let places = place(&wishes(&[mark]), &drawn(&[mark]), &FRAME, 260.0);
        let place = places[0].as_ref().unwrap();
        assert!(!place.area.meets(&Area::around(mark, 4.0)), "{place:?}");
        let (x, y) = place.area.nearest(mark);
        assert!((x - mark.0).hypot(y - mark.1) < 30.0, "{place:?}");
    }

    #[test]
    fn a_line_is_seen_to_cross_an_area() {
        let area = Area::around((10.0, 10.0), 5.0);
        assert!(area.crossed(((0.0, 0.0), (20.0, 20.0))));
        assert!(!area.crossed(((0.0, 0.0), (4.0, 20.0))));
        assert!(!area.crossed(((0.0, 0.0), (4.0, 4.0))));
    }

    #[test]
    fn a_column_spreads_what_is_dense() {
        let at = column(&[50.0, 50.0, 51.0, 99.0], 0.0, 100.0);
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= LINE), "{at:?}");
        assert!(at[3] <= 100.0 && at[0] >= 0.0, "{at:?}");
    }
}
