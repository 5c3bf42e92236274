//! `/v1/responses`: the basics, over the same machinery as chat completions.

use super::{
    App,
    answer::{self, Events, Heading, Next},
    body::Body,
    chat::{self, Answers, Talk},
};
use crate::api::{
    ApiError, FlatFormat, Incomplete, OutputMessage, OutputText, OutputTokensDetails, ResponseFormat,
    ResponseObject, ResponseUsage, ResponsesRequest, Usage,
};
use async_stream::stream;
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response, sse},
};
use futures_util::Stream;
use serde_json::{Value, json};
use std::{sync::Arc, time::Instant};

#[utoipa::path(
    post,
    path = "/v1/responses",
    tag = "text",
    request_body = ResponsesRequest,
    responses(
        (status = 200, body = ResponseObject, description = "The answer; with stream, the events of OpenAI's Responses API"),
        crate::api::Refusals,
    )
)]
/// Goes on with a conversation, in the newer shape.
pub(crate) async fn responses(
    State(app): State<Arc<App>>,
    Body(request): Body<ResponsesRequest>,
) -> Result<Response, ApiError> {
    let since = Instant::now();
    if request.previous_response_id.is_some() {
        let message = "previous_response_id: nothing is kept here but sessions; send the whole conversation, or a session";
        return Err(ApiError::param("previous_response_id", message));
    }
    if request.n.is_some_and(|n| n != 1) {
        return Err(ApiError::param("n", "n: a response is one answer"));
    }
    let streams = request.stream.unwrap_or(false);
    let mut talk = chat::request_of(request.messages()?, &request.common());
    talk.max_tokens = request.max_output_tokens;
    talk.response_format =
        request.text.as_ref().and_then(|text| text.format.clone()).map(format).transpose()?;
    let Talk { events, .. } = Talk::begin(&app, talk, since).await?;
    let heading = Heading::new(&app, "resp_");
    let response = ResponseObject {
        id: heading.id,
        object: "response",
        created_at: heading.created,
        status: "in_progress",
        model: heading.model,
        output: vec![],
        incomplete_details: None,
        instructions: request.instructions,
        error: None,
        parallel_tool_calls: false,
        tool_choice: "none",
        tools: [],
        temperature: request.temperature,
        top_p: request.top_p,
        usage: None,
    };
    let answers = Answers::new(&app.model, 1, None);
    match streams {
        true => Ok(answer::sse(stream_of(response, answers, events)).into_response()),
        false => Ok(Json(whole(response, answers, events).await?).into_response()),
    }
}

/// What the answer's text must be, in the older shape.
fn format(format: FlatFormat) -> Result<ResponseFormat, ApiError> {
    match (format.r#type.as_str(), format.schema) {
        ("text", _) => Ok(ResponseFormat::Text),
        ("json_object", schema) => Ok(ResponseFormat::JsonObject { schema }),
        ("json_schema", Some(schema)) => Ok(ResponseFormat::JsonObject { schema: Some(schema) }),
        ("json_schema", None) => Err(ApiError::param("text", "text.format.schema is missing")),
        (kind, _) => Err(ApiError::param(
            "text",
            format!("text.format is of type {kind:?}: say text, json_object or json_schema"),
        )),
    }
}

/// The response that is over.
fn completed(mut response: ResponseObject, text: String, reason: &str, usage: Usage) -> ResponseObject {
    let is_complete = reason == "stop";
    response.status = if is_complete { "completed" } else { "incomplete" };
    response.incomplete_details = (!is_complete).then_some(Incomplete { reason: "max_output_tokens" });
    response.output = vec![message(&response.id, response.status, text)];
    response.usage = Some(ResponseUsage {
        input_tokens: usage.prompt_tokens,
        input_tokens_details: usage.prompt_tokens_details,
        output_tokens: usage.completion_tokens,
        output_tokens_details: OutputTokensDetails::default(),
        total_tokens: usage.total_tokens,
    });
    response
}

fn message(response: &str, status: &'static str, text: String) -> OutputMessage {
    OutputMessage {
        id: response.replacen("resp", "msg", 1),
        r#type: "message",
        role: "assistant",
        status,
        content: vec![OutputText { r#type: "output_text", text, annotations: [] }],
    }
}

async fn whole(
    response: ResponseObject,
    mut answers: Answers,
    mut events: Events,
) -> Result<ResponseObject, ApiError> {
    let (mut text, mut reason) = (String::new(), "length");
    loop {
        match events.next().await? {
            Next::Event(_, event) => {
                let Some(piece) = answers.take(event) else { continue };
                text.push_str(&piece.delta.content.flatten().unwrap_or_default());
                reason = piece.finish_reason.unwrap_or(reason);
            }
            Next::Over(usage) => return Ok(completed(response, text, reason, usage)),
        }
    }
}

/// The events of a response as it comes.
fn stream_of(
    response: ResponseObject,
    mut answers: Answers,
    mut events: Events,
) -> impl Stream<Item = sse::Event> + Send {
    let mut number = 0;
    let mut named = move |kind: &str, mut data: Value| {
        data["type"] = kind.into();
        data["sequence_number"] = number.into();
        number += 1;
        answer::event(&data).event(kind)
    };
    let item = response.id.replacen("resp", "msg", 1);
    let place = move || json!({"item_id": item, "output_index": 0, "content_index": 0});
    stream! {
        let (mut text, mut reason) = (String::new(), "length");
        yield named("response.created", json!({"response": response}));
        yield named("response.in_progress", json!({"response": response}));
        let mut begun = message(&response.id, "in_progress", String::new());
        begun.content.clear();
        yield named("response.output_item.added", json!({"output_index": 0, "item": begun}));
        let empty = json!({"type": "output_text", "text": "", "annotations": []});
        yield named("response.content_part.added", with(place(), "part", empty));
        loop {
            match events.next().await {
                Ok(Next::Event(_, event)) => {
                    let Some(piece) = answers.take(event) else { continue };
                    reason = piece.finish_reason.unwrap_or(reason);
                    if let Some(delta) = piece.delta.content.flatten() {
                        text.push_str(&delta);
                        let mut data = with(place(), "delta", delta.into());
                        data["logprobs"] = json!([]);
                        yield named("response.output_text.delta", data);
                    }
                }
                Ok(Next::Over(usage)) => {
                    let over = completed(response, text.clone(), reason, usage);
                    yield named("response.output_text.done", with(place(), "text", text.into()));
                    let (part, item) = (json!(over.output[0].content[0]), json!(over.output[0]));
                    yield named("response.content_part.done", with(place(), "part", part));
                    yield named("response.output_item.done", json!({"output_index": 0, "item": item}));
                    let kind = if over.status == "completed" { "response.completed" } else { "response.incomplete" };
                    yield named(kind, json!({"response": over}));
                    return;
                }
                Err(ApiError { message, code, param, .. }) => {
                    yield named("error", json!({"message": message, "code": code, "param": param}));
                    return;
                }
            }
        }
    }
}

fn with(mut data: Value, key: &str, value: Value) -> Value {
    data[key] = value;
    data
}
