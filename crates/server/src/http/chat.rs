//! `/v1/chat/completions`: conversations by the model's template.

use super::{
    App,
    answer::{self, Events, Heading, Next},
    body::Body,
    pieces::{Piece, Pieces},
    talk::Talk,
};
use crate::{
    api::{
        Answer, ApiError, CalledFunction, ChatAnswer, ChatChoice, ChatChunk, ChatRequest, ChunkChoice, Delta,
        FunctionDelta, StreamOptions, ToolCall, ToolCallDelta, Usage, random,
    },
    tools::Read,
};
use async_stream::stream;
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response, sse},
};
use futures_util::Stream;
use std::{sync::Arc, time::Instant};

#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "text",
    request_body = ChatRequest,
    responses(
        (status = 200, body = ChatAnswer, description = "The answer; with stream, events of ChatChunk, then [DONE]"),
        crate::api::Refusals,
    )
)]
/// Goes on with a conversation.
pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Body(request): Body<ChatRequest>,
) -> Result<Response, ApiError> {
    let since = Instant::now();
    let options = answer::stream_options(&request.common())?;
    let heading = Heading::new(&app, "chatcmpl-");
    let (choices, talk) = (request.common().choices()?, Talk::begin(&app, request, since).await?);
    let Talk { events, tools } = talk;
    let pieces = Pieces::new(&app.model, choices, tools);
    match options {
        Some(options) => Ok(answer::sse(stream_of(heading, options, pieces, events)).into_response()),
        None => Ok(Json(whole(heading, choices, pieces, events).await?).into_response()),
    }
}

/// A new call's.
pub(crate) fn call_id() -> String {
    format!("call_{:016x}", random())
}

/// What was read, as it is streamed.
fn delta_of(reads: Vec<Read>) -> Delta {
    let mut delta = Delta::default();
    for read in reads {
        match read {
            Read::Text(text) => delta.content.get_or_insert_default().get_or_insert_default().push_str(&text),
            Read::Call { index, name } => delta.tool_calls.push(ToolCallDelta {
                index,
                id: Some(call_id()),
                r#type: Some("function"),
                function: FunctionDelta { name: Some(name), arguments: String::new() },
            }),
            Read::Arguments { index, text } => {
                let last = delta.tool_calls.last_mut().filter(|call| call.index == index);
                match last {
                    Some(call) => call.function.arguments.push_str(&text),
                    None => delta.tool_calls.push(ToolCallDelta {
                        index,
                        function: FunctionDelta { name: None, arguments: text },
                        ..ToolCallDelta::default()
                    }),
                }
            }
        }
    }
    delta
}

/// The answer as it comes.
fn stream_of(
    heading: Heading,
    options: StreamOptions,
    mut pieces: Pieces,
    mut events: Events,
) -> impl Stream<Item = sse::Event> + Send {
    let chunk = move |choices: Vec<ChunkChoice>, usage: Option<Usage>, kv| {
        let Heading { id, created, model } = heading.clone();
        answer::event(&ChatChunk { id, object: "chat.completion.chunk", created, model, choices, usage, kv })
    };
    stream! {
        loop {
            match events.next().await {
                Ok(Next::Event(_, event)) => if let Some(piece) = pieces.take(event) {
                    let Piece { index, first, reads, logprobs, finish_reason, kv } = piece;
                    if first {
                        let delta = Delta { role: Some("assistant"), content: Some(None), ..Delta::default() };
                        yield chunk(vec![ChunkChoice { index, delta, logprobs: None, finish_reason: None }], None, None);
                    }
                    let delta = delta_of(reads);
                    yield chunk(vec![ChunkChoice { index, delta, logprobs, finish_reason }], None, kv);
                }
                Ok(Next::Over(usage)) => {
                    if options.include_usage.unwrap_or(false) {
                        yield chunk(vec![], Some(usage), None);
                    }
                    yield sse::Event::default().data("[DONE]");
                    return;
                }
                Err(error) => {
                    yield answer::event(&error.body());
                    return;
                }
            }
        }
    }
}

/// The answer when it is over.
async fn whole(
    heading: Heading,
    count: usize,
    mut pieces: Pieces,
    mut events: Events,
) -> Result<ChatAnswer, ApiError> {
    let mut choices: Vec<ChatChoice> = (0..count)
        .map(|index| ChatChoice {
            index,
            message: Answer { role: "assistant", content: None, tool_calls: vec![], refusal: None },
            logprobs: None,
            finish_reason: "length",
        })
        .collect();
    let usage = loop {
        match events.next().await? {
            Next::Event(_, event) => {
                if let Some(piece) = pieces.take(event) {
                    add(&mut choices[piece.index], piece);
                }
            }
            Next::Over(usage) => break usage,
        }
    };
    for choice in choices.iter_mut().filter(|choice| choice.message.tool_calls.is_empty()) {
        choice.message.content.get_or_insert_default();
    }
    let Heading { id, created, model } = heading;
    Ok(ChatAnswer { id, object: "chat.completion", created, model, choices, usage })
}

/// Adds a piece to an answer.
fn add(choice: &mut ChatChoice, piece: Piece) {
    let Answer { content, tool_calls, .. } = &mut choice.message;
    for read in piece.reads {
        match read {
            Read::Text(text) => content.get_or_insert_default().push_str(&text),
            Read::Call { name, .. } => {
                let function = CalledFunction { name, arguments: String::new() };
                tool_calls.push(ToolCall { id: call_id(), r#type: "function".into(), function });
            }
            Read::Arguments { index, text } => {
                if let Some(call) = tool_calls.get_mut(index) {
                    call.function.arguments.push_str(&text);
                }
            }
        }
    }
    if let Some(more) = piece.logprobs {
        choice.logprobs.get_or_insert_default().content.extend(more.content);
    }
    choice.finish_reason = piece.finish_reason.unwrap_or(choice.finish_reason);
}
