//! Texts that are held to a schema, a regex, a grammar.

mod common;

use common::*;
use serde_json::{Map, Value, json};
use sketchkv_engine::{Constraint, EngineError, Finish, GenerateOptions, Generation, Grammars};
use sketchkv_model::{ChatMessage, LoadOptions, Model, Sampler, Sampling, WeightFormat, Workspace, logprobs};
use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

static MODEL: LazyLock<Model> =
    LazyLock::new(|| load_with(&tiny_gpt2(), &LoadOptions { threads: 1, ..LoadOptions::default() }));
static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| Grammars::new(&MODEL).unwrap());

fn held_to(constraint: Constraint, most: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(most), constraint: Some(constraint), ..GenerateOptions::default() }
}

fn drawn(seed: u64) -> Sampling {
    Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed, ..Sampling::default() }
}

fn fed(model: &Model, prompt: &str, sampling: Sampling, options: &GenerateOptions) -> Generation {
    let mut generation = Generation::new(exact_cache(model), Sampler::new(sampling).unwrap());
    generation.feed(model, &model.tokenizer().encode_prompt(prompt).unwrap(), options).unwrap();
    generation
}

/// The text, the tokens chosen, and why it ended.
fn run(model: &Model, generation: &mut Generation) -> (String, Vec<u32>, Finish) {
    let (mut tokens, mut workspace) = (vec![], Workspace::new());
    while let Some(step) = generation.step(model, &mut workspace).unwrap() {
        tokens.extend(step.token);
    }
    (generation.text().to_owned(), tokens, generation.finish().unwrap())
}

fn text(sampling: Sampling, options: &GenerateOptions) -> (String, Vec<u32>, Finish) {
    run(&MODEL, &mut fed(&MODEL, "It was a truth", sampling, options))
}

fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "kind": {"enum": ["friend", "foe", null]},
            "likes": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 3},
        },
        "required": ["name", "age", "kind"],
        "additionalProperties": false,
    })
}

fn is_person(value: &Value) -> bool {
    let members = value.as_object().unwrap();
    let name = members["name"].as_str().unwrap().chars().count();
    let likes = members.get("likes").map_or(&[][..], |likes| likes.as_array().unwrap());
    members.keys().all(|key| ["name", "age", "kind", "likes"].contains(&key.as_str()))
        && (1..=12).contains(&name)
        && members["age"].as_u64().unwrap() <= 150
        && [json!("friend"), json!("foe"), Value::Null].contains(&members["kind"])
        && likes.len() <= 3
        && likes.iter().all(|like| like.as_str().unwrap().chars().count() <= 5)
}

#[test]
fn json_fits_its_schema_and_ends_as_if_the_model_had_said_so() {
    let options = held_to(GRAMMARS.json_schema(&person()).unwrap(), 400);
    for seed in 0..6 {
        let (text, tokens, finish) = text(drawn(seed), &options);
        assert_eq!(finish, Finish::End, "{text}");
        assert!(is_person(&serde_json::from_str(&text).unwrap()), "{text}");
        assert!(MODEL.tokenizer().is_end(*tokens.last().unwrap()));
        // What is asked for first comes first.
        let at = |name: &str| text.find(name).unwrap();
        assert!(at("\"name\"") < at("\"age\"") && at("\"age\"") < at("\"kind\""), "{text}");
    }
    let (text, _, finish) = text(drawn(3), &held_to(GRAMMARS.json_object().unwrap(), 600));
    assert!(text.starts_with('{'), "{text}");
    assert!(finish == Finish::Length || serde_json::from_str::<Map<String, Value>>(&text).is_ok(), "{text}");
}

#[test]
fn a_text_is_what_the_regex_matches() {
    // Anchors say what is so already; but an escaped dollar is one.
    let constraint = GRAMMARS.regex(r"^[A-Z][a-z]{2,5}/\d{3}(;[01]{1,6})?\$$").unwrap();
    for seed in 0..6 {
        let (text, _, finish) = text(drawn(seed), &held_to(constraint.clone(), 200));
        assert_eq!(finish, Finish::End);
        let (name, rest) = text.split_once('/').unwrap();
        let (number, bits) = rest.strip_suffix('$').unwrap().split_at(3);
        assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{text}");
        assert!((3..=6).contains(&name.len()) && name[1..].bytes().all(|c| c.is_ascii_lowercase()), "{text}");
        assert!(number.chars().all(char::is_numeric), "{text}");
        let bits = bits
            .strip_prefix(';')
            .map_or(bits.is_empty(), |bits| !bits.is_empty() && bits.bytes().all(|bit| b"01".contains(&bit)));
        assert!(bits, "{text}");
    }
}

#[test]
fn a_grammar_knows_its_rules() {
    let grammar = "start: sum\nsum: NUMBER | \"(\" sum \"+\" NUMBER \")\"\nNUMBER: /[1-9][0-9]?/\n";
    let (text, _, finish) = text(drawn(1), &held_to(GRAMMARS.lark(grammar).unwrap(), 300));
    let balanced = text.matches('(').count() == text.matches(')').count();
    let known = text.bytes().all(|byte| b"()+0123456789".contains(&byte));
    assert!(known && (finish == Finish::Length || balanced && !text.is_empty()), "{text}");
}

#[test]
fn where_it_is_complete_it_may_end_or_go_on() {
    let end = MODEL.tokenizer().ends().next().unwrap();
    let options = held_to(GRAMMARS.regex("(ab){2,}").unwrap(), 30);
    let biased = |bias| Sampling { logit_bias: vec![(end, bias)], ..drawn(2) };
    // The end token is no choice before it is complete, however likely.
    let (short, tokens, finish) = text(biased(100.0), &options);
    assert_eq!((finish, tokens.last()), (Finish::End, Some(&end)));
    assert!(short == "abab" || short == "ababab", "{short}: one token may hold more than what completes it");
    let (long, _, finish) = text(biased(-100.0), &options);
    assert_eq!(finish, Finish::Length);
    assert!(long.len() >= 30 && "ab".repeat(99).starts_with(&long), "{long}");
    // That the end is not asked for changes nothing.
    let (text, _, finish) = text(biased(100.0), &GenerateOptions { ignore_end: true, ..options });
    assert_eq!((text, finish), (short, Finish::End));
}

/// A grammar that allows everything forces no spelling on the model: token by token it is what it would have been.
#[test]
fn what_allows_everything_changes_nothing() {
    let free = GenerateOptions { max_tokens: Some(40), ..GenerateOptions::default() };
    let all = GenerateOptions { constraint: Some(GRAMMARS.regex("(?s:.*)").unwrap()), ..free.clone() };
    for sampling in [Sampling::greedy(), Sampling { repetition_penalty: 1.2, top_k: 20, ..drawn(4) }] {
        assert_eq!(text(sampling.clone(), &free), text(sampling, &all));
    }
}

#[test]
fn stop_texts_are_found_within_a_grammar() {
    let options = held_to(GRAMMARS.json_schema(&person()).unwrap(), 400);
    let (whole, tokens, _) = text(drawn(5), &options);
    let cut = whole.find("\"age\"").unwrap();
    for stop in ["\"age\"", "ge\""] {
        let options = GenerateOptions { stop: vec![stop.to_owned()], ..options.clone() };
        let mut generation = fed(&MODEL, "It was a truth", drawn(5), &options);
        let (text, _, finish) = run(&MODEL, &mut generation);
        assert_eq!((text.as_str(), finish), (&whole[..cut + "\"age\"".find(stop).unwrap()], Finish::Stop));
        // What is fed next is free: no JSON goes on with this.
        generation.feed(&MODEL, &MODEL.tokenizer().encode(" of the").unwrap(), &free(8)).unwrap();
        let (text, ..) = run(&MODEL, &mut generation);
        assert!(text.chars().any(char::is_alphabetic) && !text.contains('"'), "{text}");
    }
    // Tokens that are taken back and come again are not taken for new ones.
    for stop in ["\"age\"\u{0}", "}\u{0}", "e\"\u{0}"] {
        let options = GenerateOptions { stop: vec![stop.to_owned()], ..options.clone() };
        let (text, same, finish) = text(drawn(5), &options);
        assert_eq!((text, same, finish), (whole.clone(), tokens.clone(), Finish::End), "{stop}");
    }
}

fn free(most: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(most), ..GenerateOptions::default() }
}

#[test]
fn an_interrupt_or_a_fork_ends_what_it_is_held_to() {
    let options = held_to(GRAMMARS.regex("[0-9]{400}").unwrap(), 400);
    let mut generation = fed(&MODEL, "It was a truth", drawn(7), &options);
    let mut workspace = Workspace::new();
    for _ in 0..9 {
        generation.step(&MODEL, &mut workspace).unwrap();
    }
    let digits = generation.text().to_owned();
    assert!(digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits}");
    let mut fork = generation.fork(&MODEL).unwrap();
    assert_eq!(generation.finish(), Some(Finish::Interrupted));
    for generation in [&mut fork, &mut generation] {
        generation.feed(&MODEL, &MODEL.tokenizer().encode(" universally").unwrap(), &free(12)).unwrap();
        let (text, ..) = run(&MODEL, generation);
        assert!(text.bytes().any(|byte| byte.is_ascii_alphabetic()), "{text}");
    }
}

/// What one text does is nothing to another that is held to the same constraint.
#[test]
fn texts_of_one_constraint_know_nothing_of_each_other() {
    let options = held_to(GRAMMARS.json_schema(&person()).unwrap(), 400);
    let alone: Vec<_> = (0..3).map(|seed| text(drawn(seed), &options).0).collect();
    let mut generations: Vec<_> =
        (0..3).map(|seed| fed(&MODEL, "It was a truth", drawn(seed), &options)).collect();
    let mut workspace = Workspace::new();
    while generations
        .iter_mut()
        .filter(|generation| generation.finish().is_none())
        .map(|generation| generation.step(&MODEL, &mut workspace).unwrap().is_some())
        .fold(false, |any, stepped| any | stepped)
    {}
    assert_eq!(generations.iter().map(|generation| generation.text()).collect::<Vec<_>>(), alone);
}

#[test]
fn a_token_chosen_without_a_pass_has_its_logits() {
    let mut generation = fed(&MODEL, "It was a truth", Sampling::greedy(), &free(0));
    run(&MODEL, &mut generation);
    let logits = generation.kept_logits().to_vec();
    assert_eq!(logits.len(), MODEL.config().vocabulary);
    generation.feed(&MODEL, &[], &free(2)).unwrap();
    let token = generation.ready().unwrap().token.unwrap();
    assert_eq!(generation.kept_logits(), logits);
    let of = logprobs(generation.kept_logits(), token, 1);
    assert_eq!(of.top, [(token, of.logprob)]);
    generation.step(&MODEL, &mut Workspace::new()).unwrap();
    assert!(generation.kept_logits().is_empty(), "the token was run");
}

fn refusal(made: Result<Constraint, EngineError>) -> String {
    let refused = made.unwrap_err().to_string();
    assert!(!refused.contains('\n') && refused.chars().count() < 320, "{refused}");
    refused
}

#[test]
fn what_is_not_supported_is_named() {
    let schema = |schema: Value| refusal(GRAMMARS.json_schema(&schema));
    for (keyword, value) in [
        ("uniqueItems", json!(true)),
        ("contains", json!({"type": "null"})),
        ("not", json!({})),
        ("if", json!({})),
        ("propertyNames", json!({"pattern": "a"})),
        ("dependentRequired", json!({})),
        ("unevaluatedProperties", json!(false)),
        ("$dynamicRef", json!("#a")),
        ("x-guidance", json!({"lenient": true})),
    ] {
        let refused = schema(json!({ keyword: value }));
        assert!(refused.contains(&format!("\"{keyword}\"")), "{refused}");
    }
    assert!(schema(json!({"type": "string", "format": "poem"})).contains("poem"));
    assert!(schema(json!({"type": "poem"})).contains("poem"));
    assert!(schema(json!({"oneOf": [{"type": "string"}, {"minLength": 2}]})).contains("anyOf"));
    assert!(schema(json!({"$ref": "#/$defs/a"})).contains("$defs"));
    assert!(schema(json!({"$ref": "https://example.com/a"})).contains("example.com"));
    assert!(schema(json!(3)).contains("an object, not a number"));
    for nothing in [
        json!(false),
        json!({"type": "integer", "minimum": 3, "maximum": 2}),
        json!({"$ref": "#"}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
    ] {
        schema(nothing);
    }
    let regex = |regex: &str| refusal(GRAMMARS.regex(regex));
    assert!(regex("a(b").contains("unclosed group"));
    assert!(regex("(?=a)b").contains("look-around"));
    assert!(regex(r"(a)\1").contains("backreferences"));
    assert!(regex(r"a\").contains("backslash"));
    assert!(regex(r"[^\s\S]").contains("no text"));
    assert!(refusal(GRAMMARS.lark("start: \"a\"\n  foo $\n")).contains("2("));
    assert!(refusal(GRAMMARS.lark("begin: \"a\"")).contains("start"));
    assert!(refusal(GRAMMARS.lark("start: <|nobody|>")).len() > 20);
    assert!(refusal(GRAMMARS.lark("start: start")).contains("no text"));
}

/// Whatever is asked for, it is there or refused in seconds, and what is there costs no more at any token than a pass.
#[test]
fn too_much_is_refused_soon() {
    let chain = |count: usize, rule: &dyn Fn(usize) -> String| (0..count).map(rule).collect::<String>();
    let defs = |count: usize, def: &dyn Fn(usize) -> Value| {
        let defs: Map<String, Value> = (0..count).map(|i| (format!("a{i}"), def(i))).collect();
        json!({"$ref": "#/$defs/a0", "$defs": defs})
    };
    let mut deep = json!({});
    (0..3000).for_each(|_| deep = json!({"items": deep}));
    let mut crossed = json!({"anyOf": [{"type": "string"}, {"type": "integer"}]});
    (0..25)
        .for_each(|_| crossed = json!({"allOf": [crossed, {"anyOf": [{"minLength": 1}, {"minLength": 2}]}]}));
    let names: Map<String, Value> =
        (0..3000).map(|i| (format!("v{i}"), json!({"type": "integer"}))).collect();
    let schemas = [
        defs(6000, &|i| json!({"$ref": format!("#/$defs/a{}", (i + 1) % 6000)})),
        defs(
            4000,
            &|i| json!({"properties": {"x": {"$ref": format!("#/$defs/a{}", i + 1)}}, "type": "object"}),
        ),
        defs(900, &|i| json!({"items": {"$ref": format!("#/$defs/a{}", (i + 1) % 900)}, "type": "array"})),
        deep,
        crossed,
        json!({"type": "object", "properties": names}),
        json!({"type": "array", "items": {"type": "object"}, "minItems": u64::MAX}),
        json!({"type": "array", "prefixItems": vec![json!({"type": "string"}); 9000], "minItems": 9000}),
        json!({"type": "string", "minLength": 1_000_000, "maxLength": 1_000_000_000}),
        json!({"type": "string", "pattern": "([ab]?c?){3000}"}),
        json!({"type": "string", "pattern": "[ab]?c?".repeat(1100)}),
        json!({"type": "number", "multipleOf": 1e-300}),
        json!({"enum": (0..9000).map(|i| format!("value {i}")).collect::<Vec<_>>()}),
        json!({"patternProperties": {"(a|b)*a(a|b){20}$": {}, "(a|b)*b(a|b){20}$": {}}}),
        json!({"const": "x".repeat(300_000)}),
    ];
    let regexes = [
        "((a{1,1000}){1,1000}){1,1000}".to_owned(),
        "(a|b)*a(a|b){200}".to_owned(),
        "a?".repeat(4000),
        "(".repeat(4000) + "a" + &")*".repeat(2000),
        r"(\w+\s?\p{L}){1,2000}".to_owned(),
        "(.*x.*y.*z.*){300}".to_owned(),
        "x".repeat(100_000),
    ];
    let grammars = [
        format!("start: r0\n{}r3000: \"x\"\n", chain(3000, &|i| format!("r{i}: r{}\n", i + 1))),
        format!("start: T0\n{}T3000: \"x\"\n", chain(3000, &|i| format!("T{i}: T{}\n", i + 1))),
        format!("start: T0\n{}T40: \"x\"\n", chain(40, &|i| format!("T{i}: T{n} T{n}\n", n = i + 1))),
        format!("start: T0\n{}T14: /[ab]?c?/\n", chain(14, &|i| format!("T{i}: T{n} T{n}\n", n = i + 1))),
        "start: s\ns: s s s | s s | \"a\" | \"b\" |\n".to_owned(),
        "start: a{1000000}\na: b{1000000}\nb: \"x\"{1000000}\n".to_owned(),
        "start: ".to_owned() + &"(".repeat(9000) + "\"a\"" + &")".repeat(9000),
    ];
    let made = schemas.iter().map(|schema| (schema.to_string(), GRAMMARS.json_schema(schema)));
    let made = made.chain(regexes.iter().map(|regex| (regex.clone(), GRAMMARS.regex(regex))));
    let made = made.chain(grammars.iter().map(|grammar| (grammar.clone(), GRAMMARS.lark(grammar))));
    let mut begun = Instant::now();
    for (asked, made) in made {
        let shown = asked.chars().take(60).collect::<String>();
        assert!(begun.elapsed() < Duration::from_secs(20), "{shown}: {:?}", begun.elapsed());
        match made {
            Err(_) => drop(refusal(made)),
            Ok(constraint) => {
                let mut generation = fed(&MODEL, "It was", drawn(1), &held_to(constraint, 40));
                let mut workspace = Workspace::new();
                loop {
                    let before = Instant::now();
                    let over = match generation.step(&MODEL, &mut workspace) {
                        Ok(step) => step.is_none(),
                        Err(EngineError::Constraint { .. }) => true,
                        Err(error) => panic!("{shown}: {error}"),
                    };
                    assert!(before.elapsed() < Duration::from_secs(3), "{shown}: {:?}", before.elapsed());
                    if over {
                        break;
                    }
                }
            }
        }
        begun = Instant::now();
    }
}

/// A schema by chance, of all that JSON consists of.
fn chance(random: &mut impl FnMut(usize) -> usize, depth: usize) -> Value {
    let leaves = 7;
    match random(if depth == 0 { leaves } else { leaves + 4 }) {
        0 => json!({"type": "null"}),
        1 => json!({"type": "boolean"}),
        2 => {
            let least = random(2000) as i64 - 1000;
            json!({"type": "integer", "minimum": least, "maximum": least + random(5000) as i64})
        }
        3 => json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1 + random(9)}),
        4 => {
            let least = random(4);
            json!({"type": "string", "minLength": least, "maxLength": least + random(6)})
        }
        5 => json!({"enum": ["a", "b c", "\"é\n", random(99), null, true]}),
        6 => json!({"type": "string", "pattern": "^[a-c]{1,3}(-[0-9]{2})?$"}),
        7 => {
            let least = random(3);
            json!({"type": "array", "items": chance(random, depth - 1), "minItems": least, "maxItems": least + 2})
        }
        8 => json!({"anyOf": [chance(random, depth - 1), chance(random, depth - 1)]}),
        _ => {
            let members: Vec<(String, Value)> =
                (0..1 + random(4)).map(|i| (format!("m{i}"), chance(random, depth - 1))).collect();
            let required: Vec<&String> =
                members.iter().enumerate().filter(|(i, _)| i % 2 == 0).map(|(_, (name, _))| name).collect();
            let (required, additional) = (json!(required), random(2) == 0);
            let members: Map<String, Value> = members.into_iter().collect();
            let mut schema = json!({"type": "object", "properties": members, "required": required});
            if additional {
                schema["additionalProperties"] = json!({"type": "null"});
                schema["maxProperties"] = json!(5);
            } else {
                schema["additionalProperties"] = json!(false);
            }
            schema
        }
    }
}

/// Whether `value` fits what [`chance`] has made.
fn fits(schema: &Value, value: &Value) -> bool {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let within = |size: f64, least: &str, most: &str| {
        bound(least).is_none_or(|least| size >= least) && bound(most).is_none_or(|most| size <= most)
    };
    if let Some(options) = schema.get("anyOf") {
        return options.as_array().unwrap().iter().any(|option| fits(option, value));
    }
    if let Some(values) = schema.get("enum") {
        return values.as_array().unwrap().contains(value);
    }
    match (schema["type"].as_str().unwrap(), value) {
        ("null", Value::Null) | ("boolean", Value::Bool(_)) => true,
        ("integer", Value::Number(number)) => {
            number.is_i64() && within(number.as_f64().unwrap(), "minimum", "maximum")
        }
        ("number", Value::Number(number)) => {
            let number = number.as_f64().unwrap();
            number > 0.0 && within(number, "minimum", "maximum")
        }
        ("string", Value::String(text)) if schema.get("pattern").is_some() => {
            let (letters, digits) = text.split_once('-').unwrap_or((text, "00"));
            (1..=3).contains(&letters.len())
                && letters.bytes().all(|byte| (b'a'..=b'c').contains(&byte))
                && digits.len() == 2
                && digits.bytes().all(|byte| byte.is_ascii_digit())
        }
        ("string", Value::String(text)) => within(text.chars().count() as f64, "minLength", "maxLength"),
        ("array", Value::Array(items)) => {
            within(items.len() as f64, "minItems", "maxItems")
                && items.iter().all(|item| fits(&schema["items"], item))
        }
        ("object", Value::Object(members)) => {
            let further = &schema["additionalProperties"];
            let known = |(name, member): (&String, &Value)| match schema["properties"].get(name) {
                Some(schema) => fits(schema, member),
                None => further.is_object() && fits(further, member),
            };
            let required = schema["required"].as_array().unwrap();
            members.iter().all(known)
                && required.iter().all(|name| members.contains_key(name.as_str().unwrap()))
                && within(members.len() as f64, "minProperties", "maxProperties")
        }
        _ => false,
    }
}

#[test]
fn json_fits_schemas_by_chance() {
    let mut state = 11u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let mut ended = 0;
    for round in 0..60 {
        let schema = chance(&mut random, 3);
        let constraint = match GRAMMARS.json_schema(&schema) {
            Ok(constraint) => constraint,
            // That the numbers of members are counted only where no name is special is said, not passed over.
            Err(error) if error.to_string().contains("Properties") => continue,
            Err(error) => panic!("{schema}: {error}"),
        };
        // Hot enough that each token that may come does.
        let sampling = Sampling { temperature: if round % 2 == 0 { 1.0 } else { 50.0 }, ..drawn(round) };
        let (text, _, finish) = text(sampling, &held_to(constraint, 300));
        if finish == Finish::End {
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{schema}: {text}: {error}"));
            assert!(fits(&schema, &value), "{schema}: {text}");
            ended += 1;
        }
    }
    assert!(ended > 40, "{ended} of 60 came to an end");
}

#[test]
fn a_grown_model_answers_in_json() {
    let Some(path) = smollm2() else { return };
    let model = load(&path, WeightFormat::Native);
    let grammars = Grammars::new(&model).unwrap();
    let schema = json!({
        "type": "object",
        "properties": {"capital": {"type": "string"}, "population": {"type": "integer", "minimum": 1, "maximum": 99_999_999}},
        "required": ["capital", "population"],
        "additionalProperties": false,
    });
    let question = ChatMessage::new("user", "What is the capital of France? How many people live there?");
    let prompt = model.tokenizer().chat(&[question], true).unwrap();
    let options = held_to(grammars.json_schema(&schema).unwrap(), 80);
    let (text, tokens, finish) = run(&model, &mut fed(&model, &prompt, Sampling::greedy(), &options));
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(finish, Finish::End);
    assert_eq!(answer["capital"], "Paris", "{text}");
    assert!(answer["population"].is_i64() && answer.as_object().unwrap().len() == 2, "{text}");
    assert!(model.tokenizer().is_end(*tokens.last().unwrap()));
    // Special tokens are no text, but a grammar can name them.
    let named = grammars.lark("start: \"Yes\" <|im_start|> \"no\"").unwrap();
    let options = GenerateOptions { show_special: true, ..held_to(named, 20) };
    let (text, ..) = run(&model, &mut fed(&model, &prompt, Sampling::greedy(), &options));
    assert!(text.starts_with("Yes<|im_start|>no"), "{text}");
    let spelled = grammars.regex(r"Yes<\|im_start\|>no").unwrap();
    let (text, tokens, _) = run(&model, &mut fed(&model, &prompt, Sampling::greedy(), &held_to(spelled, 20)));
    assert_eq!(text, "Yes<|im_start|>no");
    assert!(!tokens.contains(&model.tokenizer().id("<|im_start|>").unwrap()));
}
