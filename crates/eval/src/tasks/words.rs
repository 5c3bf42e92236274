use crate::Rng;

/// Short, common English nouns: what keys, variables' owners and word lists are made of.
const NOUNS: [&str; 160] = [
    "acorn", "anchor", "angle", "apple", "arrow", "badge", "basin", "basket", "beacon", "berry", "bishop",
    "blanket", "bottle", "branch", "bridge", "bronze", "bucket", "butter", "button", "cabin", "candle",
    "canvas", "captain", "carpet", "castle", "cellar", "chain", "chapel", "cherry", "cloud", "clover",
    "coast", "copper", "corner", "cotton", "cousin", "cradle", "crystal", "curtain", "daisy", "desert",
    "diamond", "dinner", "dragon", "drawer", "eagle", "engine", "falcon", "farmer", "feather", "fiddle",
    "finger", "flame", "flower", "forest", "fossil", "fountain", "garden", "garlic", "ginger", "glacier",
    "glove", "goblet", "grain", "granite", "hammer", "harbor", "harvest", "helmet", "hollow", "honey",
    "horse", "island", "ivory", "jacket", "jewel", "jungle", "kettle", "kitchen", "ladder", "lantern",
    "lemon", "lettuce", "linen", "lizard", "locket", "lumber", "magnet", "mantle", "maple", "marble",
    "market", "meadow", "melon", "mirror", "monkey", "mountain", "museum", "needle", "nephew", "nickel",
    "oak", "ocean", "olive", "onion", "orange", "orchard", "oven", "oyster", "paddle", "palace", "parrot",
    "pebble", "pencil", "pepper", "pigeon", "pillow", "planet", "pocket", "poplar", "potato", "prairie",
    "pumpkin", "rabbit", "raven", "ribbon", "river", "rocket", "saddle", "salmon", "satin", "scarlet",
    "shadow", "shelter", "shovel", "silver", "spider", "spring", "stable", "statue", "stone", "summer",
    "table", "temple", "thunder", "ticket", "timber", "tower", "trumpet", "tunnel", "turtle", "valley",
    "velvet", "violin", "wagon", "walnut", "whistle", "willow", "window", "winter",
];

/// `count` different words, in random order; beyond the list they are joined in pairs.
pub(super) fn distinct(rng: &mut Rng, count: usize) -> Vec<String> {
    let mut words: Vec<String> = NOUNS.iter().map(|&noun| noun.to_owned()).collect();
    rng.shuffle(&mut words);
    let mut extra = 0;
    while words.len() < count {
        let (first, second) = (extra / NOUNS.len() % NOUNS.len(), (extra * 7 + 1) % NOUNS.len());
        let pair = format!("{}-{}", NOUNS[first], NOUNS[second]);
        if first != second && !words.contains(&pair) {
            words.push(pair);
        }
        extra += 1;
    }
    words.truncate(count);
    words
}

/// A number of `digits` digits that does not begin with 0.
pub(super) fn number(rng: &mut Rng, digits: u32) -> String {
    let least = 10usize.pow(digits - 1);
    (least + rng.below(9 * least)).to_string()
}

/// A made-up word of `letters` letters, consonants and vowels in turn.
pub(super) fn coded(rng: &mut Rng, letters: usize) -> String {
    const CONSONANTS: &[u8] = b"bdfgklmnprstvz";
    const VOWELS: &[u8] = b"aeiou";
    (0..letters).map(|i| char::from(*rng.pick(if i % 2 == 0 { CONSONANTS } else { VOWELS }))).collect()
}
