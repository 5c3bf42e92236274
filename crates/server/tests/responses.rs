//! Tools in the newer shape beside the older one, on a model whose template writes calls as Hermes does.

mod common;

use common::*;
use serde_json::{Value, json};
use sketchkv_model::Model;

const TEMPLATE: &str = "{% if tools %}Tools: {{ tools | tojson }}\n{% endif %}\
    {% for m in messages %}{{ m.role }}: {{ m.content }}\
    {% for call in m.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}\n\
    {% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

fn hermes() -> Model {
    let mut model = model();
    model.set_chat_template(TEMPLATE).unwrap();
    model
}

/// A function of this name, by its name and schema.
fn function(name: &str) -> Value {
    let parameters = json!({
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": false,
    });
    json!({"name": name, "description": "Looks it up.", "parameters": parameters})
}

fn flat(name: &str) -> Value {
    let mut tool = function(name);
    tool["type"] = "function".into();
    tool
}

/// So small a model writes white space for ever where JSON allows it, unless that is banned.
fn tight() -> Value {
    let model = model();
    let tokenizer = model.tokenizer();
    let is_blank = |id: &u32| tokenizer.token_bytes(*id).iter().all(u8::is_ascii_whitespace);
    let blank = (0..tokenizer.vocabulary() as u32).filter(is_blank);
    blank.map(|id| (id.to_string(), Value::from(-100))).collect::<serde_json::Map<_, _>>().into()
}

fn request(input: Value) -> Value {
    let tools = json!([flat("weather"), flat("time")]);
    json!({"input": input, "tools": tools, "temperature": 0, "logit_bias": tight(), "max_output_tokens": 60, "parallel_tool_calls": false})
}

/// The same in the older shape.
fn chat(messages: Value) -> Value {
    let tool = |name| json!({"type": "function", "function": function(name)});
    let tools = json!([tool("weather"), tool("time")]);
    json!({"messages": messages, "tools": tools, "temperature": 0, "logit_bias": tight(), "max_tokens": 60, "parallel_tool_calls": false})
}

#[test]
fn a_call_is_the_one_of_the_older_shape() {
    let server = Server::of(hermes, settings());
    let user = json!([{"role": "user", "content": "Is it raining in Rome?"}]);
    let named = (
        json!({"type": "function", "name": "time"}),
        json!({"type": "function", "function": {"name": "time"}}),
    );
    for (newer, older) in [("required".into(), "required".into()), named] {
        let (mut asked, mut other) = (request(user.clone()), chat(user.clone()));
        (asked["tool_choice"], other["tool_choice"]) = (newer, older);
        let answer = server.ask("/v1/responses", &asked);
        let other = server.ask("/v1/chat/completions", &other);
        let call = &other["choices"][0]["message"]["tool_calls"][0]["function"];
        let [item] = &answer["output"].as_array().unwrap()[..] else { panic!("{answer}") };
        assert_eq!(
            (&item["type"], &item["status"]),
            (&"function_call".into(), &"completed".into()),
            "{answer}"
        );
        assert_eq!((&item["name"], &item["arguments"]), (&call["name"], &call["arguments"]));
        assert!(item["id"].as_str().unwrap().starts_with("fc_"), "{item}");
        assert!(item["call_id"].as_str().unwrap().starts_with("call_"), "{item}");
        assert_eq!(answer["status"], "completed");
        assert_eq!(
            (&answer["tools"][0]["name"], &answer["tool_choice"]),
            (&"weather".into(), &asked["tool_choice"])
        );
        assert_eq!(answer["usage"]["input_tokens"], other["usage"]["prompt_tokens"]);
        assert_eq!(answer["usage"]["kv"]["bytes"], other["usage"]["kv"]["bytes"]);

        // What was called and what came of it is what one goes on from, in either shape.
        let id = item["call_id"].clone();
        let told = json!({"type": "function_call_output", "call_id": id, "output": "It is raining."});
        let asked = server.ask("/v1/responses", &request(json!([user[0], item, told])));
        let assistant =
            json!({"role": "assistant", "tool_calls": [{"id": id, "type": "function", "function": call}]});
        let told = json!({"role": "tool", "tool_call_id": id, "content": "It is raining."});
        let other = server.ask("/v1/chat/completions", &chat(json!([user[0], assistant, told])));
        assert_eq!(asked["usage"]["input_tokens"], other["usage"]["prompt_tokens"]);
        assert_eq!(asked["output"][0]["content"][0]["text"], other["choices"][0]["message"]["content"]);
    }
}

#[test]
fn a_call_streams_as_items_and_pieces() {
    // Without guesses, so that tokens come one by one.
    let server = Server::of(hermes, sketchkv_server::Settings { guesses: false, ..settings() });
    let mut body = request("Is it raining in Rome?".into());
    body["tool_choice"] = "required".into();
    let whole = server.ask("/v1/responses", &body);
    body["stream"] = true.into();
    let events: Vec<Value> = server.stream("/v1/responses", &body).collect();
    let kind = |event: &Value| event["type"].as_str().unwrap().to_owned();
    let of = |wanted: &str| events.iter().filter(|event| event["type"] == wanted).collect::<Vec<_>>();
    let deltas = of("response.function_call_arguments.delta");
    let mut expected = vec!["response.created", "response.in_progress", "response.output_item.added"];
    expected.extend(deltas.iter().map(|_| "response.function_call_arguments.delta"));
    expected.extend([
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]);
    assert_eq!(events.iter().map(kind).collect::<Vec<_>>(), expected);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let added = &of("response.output_item.added")[0]["item"];
    let done = of("response.function_call_arguments.done")[0];
    let item = &of("response.output_item.done")[0]["item"];
    assert_eq!((&added["arguments"], &added["status"]), (&"".into(), &"in_progress".into()));
    let joined: String = deltas.iter().map(|event| event["delta"].as_str().unwrap()).collect();
    assert_eq!(joined, whole["output"][0]["arguments"].as_str().unwrap());
    assert_eq!((&done["arguments"], &done["name"]), (&item["arguments"], &item["name"]));
    assert!(deltas.len() > 1 && done["arguments"] == joined);
    assert!(deltas.iter().all(|event| event["item_id"] == added["id"] && event["output_index"] == 0));
    assert_eq!(&events.last().unwrap()["response"]["output"][0], item);

    // Cut off, the response is incomplete, and so is its one item: a call with what there is of its arguments.
    let mut shortest = joined.len();
    for tokens in 1..whole["usage"]["output_tokens"].as_u64().unwrap() {
        body["max_output_tokens"] = tokens.into();
        let last = server.stream("/v1/responses", &body).last().unwrap();
        let [item] = &last["response"]["output"].as_array().unwrap()[..] else { panic!("{last}") };
        assert_eq!((&last["type"], &item["status"]), (&"response.incomplete".into(), &"incomplete".into()));
        if item["type"] == "function_call" {
            let arguments = item["arguments"].as_str().unwrap();
            assert!(joined.starts_with(arguments), "{item}");
            shortest = shortest.min(arguments.len());
        }
    }
    assert!(shortest < joined.len(), "no call was cut off within its arguments");
}

#[test]
fn a_stream_says_what_was_asked_of_it() {
    let server = Server::of(hermes, sketchkv_server::Settings { kv: "auto".parse().unwrap(), ..settings() });
    let mut body = json!({"input": novel(0, 100), "max_output_tokens": 400, "temperature": 0, "ignore_eos": true, "stream": true});
    let kv = |body: &Value| {
        let events: Vec<Value> = server.stream("/v1/responses", body).collect();
        let usage = events.last().unwrap()["response"]["usage"].clone();
        assert!(usage["kv"]["bytes"].as_u64().unwrap() > 0, "{usage}");
        events.iter().filter(|event| event["type"] == "sketchkv.kv").count()
    };
    assert_eq!(kv(&body), 0);
    body["stream_options"] = json!({"include_kv": true, "include_usage": true});
    assert!(kv(&body) > 0);
}

#[test]
fn what_is_not_known_is_refused() {
    let server = Server::of(hermes, settings());
    let user = json!({"role": "user", "content": "a"});
    let told = json!({"type": "function_call_output", "call_id": "call_1", "output": "b"});
    let cases = [
        (json!({"input": "a", "stream_options": {"include_kv": true}}), "stream_options"),
        (json!({"input": "a", "stream": true, "stream_options": {"include_usage": false}}), "stream_options"),
        (json!({"input": "a", "tools": [{"type": "web_search"}]}), "tools"),
        (json!({"input": "a", "tools": [{"type": "function", "name": "f", "parameters": 1}]}), "tools"),
        (json!({"input": "a", "tools": [flat("f")], "tool_choice": {"type": "web_search"}}), "tool_choice"),
        (
            json!({"input": "a", "tools": [flat("f")], "tool_choice": {"type": "function", "name": "g"}}),
            "tool_choice",
        ),
        (json!({"input": "a", "tools": [flat("f")], "tool_choice": "sometimes"}), "tool_choice"),
        (json!({"input": "a", "tool_choice": "required"}), "tool_choice"),
        (json!({"input": [user, told]}), "input"),
        (json!({"input": [user, {"type": "function_call", "name": "f", "arguments": "{}"}]}), "input"),
        (
            json!({"input": [user, {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{"}]}),
            "input",
        ),
        (json!({"input": [user, {"type": "reasoning"}]}), "input"),
        (json!({"input": []}), "input"),
    ];
    for (body, param) in cases {
        let reply = server.post("/v1/responses", &body);
        assert_eq!(
            (reply.status, &reply.body["error"]["param"]),
            (400, &param.into()),
            "{body}: {}",
            reply.body
        );
    }
    // A model that knows no tools says so.
    let server = Server::start(settings());
    let reply = server.post("/v1/responses", &json!({"input": "a", "tools": [flat("f")]}));
    assert_eq!((reply.status, &reply.body["error"]["param"]), (400, &"tools".into()), "{}", reply.body);
}
