//! What can be registered, and what a spec makes of it.

use sketchkv_cache::Context;
use sketchkv_cache::keep::Keep;
use sketchkv_cache::method::{Call, Choice, Kind, Method, Parameter};
use sketchkv_cache::registry::Build;
use sketchkv_cache::{Cache, CacheError, CacheShape, LayerShape, Registry, Spec};

#[derive(Clone)]
struct Newest;

impl Keep for Newest {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(self.clone())
    }
}

fn build(_: &Call, _: &Context<'_>) -> Box<dyn Keep> {
    Box::new(Newest)
}

const LIKE: Method = Method {
    name: "newest",
    choice: Choice::Keep,
    summary: "the newest tokens",
    formula: "evict the oldest",
    state: "0",
    paper: "",
    differs: "",
    parameters: &[],
};

fn refusal(method: &'static Method) -> String {
    match Registry::builtin().with(method, Build::Keep(build)) {
        Ok(_) => panic!("`{}` was registered", method.name),
        Err(error) => error.to_string(),
    }
}

#[test]
fn only_a_parser_that_was_told_knows_a_method_of_another_crate() {
    static METHOD: Method = LIKE;
    let registry = Registry::builtin().with(&METHOD, Build::Keep(build)).unwrap();
    assert!(registry.methods().any(|method| method.name == "newest"));
    let spec = Spec::parse_with("newest+k=q8@25%", &registry).unwrap();
    assert_eq!(spec.to_string(), "newest+k=q8@25%");
    assert!(matches!("newest@25%".parse::<Spec>(), Err(CacheError::Spec(_))));
    let near = Spec::parse_with("newst@25%", &registry).unwrap_err().to_string();
    assert!(near.contains("near names: `newest`"), "{near}");
}

#[test]
fn a_cache_of_another_crates_method_is_read_by_who_knows_it() {
    static METHOD: Method = LIKE;
    let registry = Registry::builtin().with(&METHOD, Build::Keep(build)).unwrap();
    let spec = Spec::parse_with("newest@25%", &registry).unwrap();
    let shape = CacheShape::uniform(1, LayerShape::new(2, 1, 64), 256);
    let bytes = Cache::new(shape.clone(), &spec, 7).unwrap().to_bytes();
    let read = Cache::from_bytes_with(&bytes, shape.clone(), &registry).unwrap();
    assert_eq!(read.to_bytes(), bytes);
    let stranger = Cache::from_bytes(&bytes, shape).err().unwrap().to_string();
    assert!(stranger.contains("newest"), "{stranger}");
}

#[test]
fn a_keep_may_have_the_name_of_another_method() {
    static METHOD: Method = Method { name: "merge", ..LIKE };
    let registry = Registry::builtin().with(&METHOD, Build::Keep(build)).unwrap();
    let spec = Spec::parse_with("merge+merge(m=8)@25%", &registry).unwrap();
    assert_eq!((spec.keep.to_string(), spec.tail.to_string()), ("merge".into(), "merge(m=8)".into()));
    assert_eq!(Spec::parse_with("h2o+merge@25%", &registry).unwrap(), "h2o+merge@25%".parse().unwrap());
}

#[test]
fn what_no_spec_could_name_is_refused() {
    static TAKEN: Method = Method { name: "h2o", ..LIKE };
    static PRESET: Method = Method { name: "balanced", ..LIKE };
    static EMPTY: Method = Method { name: "", ..LIKE };
    static NO_WORD: Method = Method { name: "h2o+", ..LIKE };
    static OTHER: Method = Method { choice: Choice::Tail, ..LIKE };
    static WRONG: Method = Method {
        parameters: &[Parameter { name: "n", kind: Kind::Integer(1, 9), default: "10", help: "" }],
        ..LIKE
    };
    static PARAMETER: Method = Method {
        parameters: &[Parameter { name: "n=", kind: Kind::Integer(1, 9), default: "1", help: "" }],
        ..LIKE
    };
    static TWICE: Method = Method {
        parameters: &[
            Parameter { name: "n", kind: Kind::Integer(1, 9), default: "1", help: "" },
            Parameter { name: "n", kind: Kind::Integer(1, 9), default: "1", help: "" },
        ],
        ..LIKE
    };
    static WORD: Method = Method {
        parameters: &[Parameter { name: "n", kind: Kind::Word(&["a", "b,c"]), default: "a", help: "" }],
        ..LIKE
    };
    for (method, says) in [
        (&TAKEN, "a keep has that name"),
        (&PRESET, "a preset has that name"),
        (&EMPTY, "`` is no word"),
        (&NO_WORD, "`h2o+` is no word"),
        (&OTHER, "builds a keep"),
        (&WRONG, "a whole number from 1 to 9"),
        (&PARAMETER, "`n=` is no word"),
        (&TWICE, "declares `n` twice"),
        (&WORD, "`b,c` is no word"),
    ] {
        let error = refusal(method);
        assert!(error.contains(says), "{error}");
        assert!(!error.contains('\n'));
    }
}
