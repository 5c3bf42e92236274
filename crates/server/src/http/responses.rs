//! `/v1/responses`: conversations in the newer shape, over the same machinery as chat completions.

use super::{
    App,
    answer::{self, Events, Heading, Next},
    body::Body,
    output::Output,
    pieces::Pieces,
    talk::{self, Talk},
};
use crate::api::{
    ApiError, ChatRequest, FlatChoice, FlatFormat, Incomplete, ResponseFormat, ResponseObject,
    ResponsesRequest, StreamOptions, Tool, Usage,
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
    let options = answer::stream_options(&request.common())?;
    if options.is_some_and(|options| options.include_usage == Some(false)) {
        let message = "stream_options.include_usage: the last event of a response always says what was used";
        return Err(ApiError::param("stream_options", message));
    }
    let talk = in_chat(&request)?;
    let Talk { events, tools } = Talk::begin(&app, talk, since).await.map_err(in_this_shape)?;
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
        parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
        tool_choice: request.tool_choice.unwrap_or(FlatChoice::Mode("auto".into())),
        tools: request.tools.unwrap_or_default(),
        temperature: request.temperature,
        top_p: request.top_p,
        usage: None,
    };
    let pieces = Pieces::new(&app.model, 1, tools);
    match options {
        Some(options) => Ok(answer::sse(stream_of(response, options, pieces, events)).into_response()),
        None => Ok(Json(whole(response, pieces, events).await?).into_response()),
    }
}

/// The request in the older shape.
fn in_chat(request: &ResponsesRequest) -> Result<ChatRequest, ApiError> {
    let format = request.text.as_ref().and_then(|text| text.format.clone());
    Ok(ChatRequest {
        max_tokens: request.max_output_tokens,
        response_format: format.map(self::format).transpose()?,
        tools: request.tools.as_ref().map(|tools| tools.iter().map(Tool::from).collect()),
        tool_choice: request.tool_choice.as_ref().map(FlatChoice::choice).transpose()?,
        parallel_tool_calls: request.parallel_tool_calls,
        ..talk::request_of(request.messages()?, &request.common())
    })
}

/// A refusal that names the field as it is called here.
fn in_this_shape(error: ApiError) -> ApiError {
    let param = error.param.map(|param| match &*param {
        "messages" => "input".into(),
        "response_format" => "text".into(),
        _ => param,
    });
    ApiError { param, ..error }
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

/// How a response, and its last item, are called whose answer ended so.
fn status_of(reason: &str) -> &'static str {
    if reason == "length" { "incomplete" } else { "completed" }
}

/// The response that is over.
fn completed(
    mut response: ResponseObject,
    output: Output,
    status: &'static str,
    usage: Usage,
) -> ResponseObject {
    response.status = status;
    response.incomplete_details =
        (status == "incomplete").then_some(Incomplete { reason: "max_output_tokens" });
    response.output = output.into_items();
    response.usage = Some(usage.into());
    response
}

async fn whole(
    response: ResponseObject,
    mut pieces: Pieces,
    mut events: Events,
) -> Result<ResponseObject, ApiError> {
    let (mut output, mut reason) = (Output::default(), "length");
    loop {
        match events.next().await? {
            Next::Event(_, event) => {
                let Some(piece) = pieces.take(event) else { continue };
                output.take(piece.reads);
                reason = piece.finish_reason.unwrap_or(reason);
            }
            Next::Over(usage) => {
                output.end(status_of(reason));
                return Ok(completed(response, output, status_of(reason), usage));
            }
        }
    }
}

/// The events of a response as it comes.
fn stream_of(
    response: ResponseObject,
    options: StreamOptions,
    mut pieces: Pieces,
    mut events: Events,
) -> impl Stream<Item = sse::Event> + Send {
    let mut number = 0;
    let mut numbered = move |mut data: Value| {
        data["sequence_number"] = number.into();
        number += 1;
        answer::event(&data).event(data["type"].as_str().unwrap_or_default())
    };
    stream! {
        let (mut output, mut reason) = (Output::default(), "length");
        yield numbered(json!({"type": "response.created", "response": response}));
        yield numbered(json!({"type": "response.in_progress", "response": response}));
        loop {
            match events.next().await {
                Ok(Next::Event(_, event)) => {
                    let Some(piece) = pieces.take(event) else { continue };
                    reason = piece.finish_reason.unwrap_or(reason);
                    for event in output.take(piece.reads) {
                        yield numbered(event);
                    }
                    if let Some(kv) = piece.kv.filter(|_| options.include_kv == Some(true)) {
                        yield numbered(json!({"type": "sketchkv.kv", "kv": kv}));
                    }
                }
                Ok(Next::Over(usage)) => {
                    let status = status_of(reason);
                    for event in output.end(status) {
                        yield numbered(event);
                    }
                    let over = completed(response, output, status, usage);
                    yield numbered(json!({"type": format!("response.{status}"), "response": over}));
                    return;
                }
                Err(ApiError { message, code, param, .. }) => {
                    yield numbered(json!({"type": "error", "message": message, "code": code, "param": param}));
                    return;
                }
            }
        }
    }
}
