//! The items of a response, and the events by which they grow.

use super::chat::call_id;
use crate::{
    api::{OutputCall, OutputItem, OutputMessage, OutputText, random},
    tools::Read,
};
use serde_json::{Value, json};

/// The items of a response as they come; the last one is open until the next begins, or all is over.
#[derive(Default)]
pub(crate) struct Output {
    items: Vec<OutputItem>,
    /// White space before anything else: the way to a call, or the beginning of a text.
    blank: String,
}

impl Output {
    /// Takes in what was read of the answer; gives the events.
    pub(crate) fn take(&mut self, reads: Vec<Read>) -> Vec<Value> {
        let mut events = vec![];
        for read in reads {
            match read {
                Read::Text(text) => self.say(&text, &mut events),
                Read::Call { name, .. } => self.call(name, &mut events),
                Read::Arguments { text, .. } => self.argue(&text, &mut events),
            }
        }
        events
    }

    /// The answer is over, its last item `status`; gives the last events. There is always an item.
    pub(crate) fn end(&mut self, status: &'static str) -> Vec<Value> {
        let mut events = vec![];
        if self.items.is_empty() {
            self.begin_message(&mut events);
        }
        self.close(status, &mut events);
        events
    }

    /// What there is in the end.
    pub(crate) fn into_items(self) -> Vec<OutputItem> {
        self.items
    }

    fn say(&mut self, text: &str, events: &mut Vec<Value>) {
        match self.items.last_mut() {
            None => {
                self.blank.push_str(text);
                if !self.blank.trim().is_empty() {
                    self.begin_message(events);
                }
                return;
            }
            Some(OutputItem::Message(_)) => {}
            Some(OutputItem::Call(_)) => {
                self.close("completed", events);
                self.begin_message(events);
            }
        }
        self.add_text(text, events);
    }

    /// Opens a message that begins with the white space that came before it.
    fn begin_message(&mut self, events: &mut Vec<Value>) {
        let message = OutputMessage {
            id: format!("msg_{:016x}", random()),
            r#type: "message",
            role: "assistant",
            status: "in_progress",
            content: vec![],
        };
        self.begin(OutputItem::Message(message), events);
        let part = OutputText { r#type: "output_text", text: String::new(), annotations: [] };
        events.push(self.of_part("response.content_part.added", "part", json!(part)));
        if let Some(OutputItem::Message(message)) = self.items.last_mut() {
            message.content.push(part);
        }
        let blank = std::mem::take(&mut self.blank);
        if !blank.is_empty() {
            self.add_text(&blank, events);
        }
    }

    fn add_text(&mut self, text: &str, events: &mut Vec<Value>) {
        let Some(OutputItem::Message(message)) = self.items.last_mut() else { return };
        message.content.iter_mut().for_each(|part| part.text.push_str(text));
        let mut event = self.of_part("response.output_text.delta", "delta", text.into());
        event["logprobs"] = json!([]);
        events.push(event);
    }

    fn call(&mut self, name: String, events: &mut Vec<Value>) {
        self.close("completed", events);
        let call = OutputCall {
            id: format!("fc_{:016x}", random()),
            r#type: "function_call",
            status: "in_progress",
            call_id: call_id(),
            name,
            arguments: String::new(),
        };
        self.begin(OutputItem::Call(call), events);
    }

    fn argue(&mut self, text: &str, events: &mut Vec<Value>) {
        let Some(OutputItem::Call(call)) = self.items.last_mut() else { return };
        call.arguments.push_str(text);
        events.push(self.of_item("response.function_call_arguments.delta", "delta", text.into()));
    }

    fn begin(&mut self, item: OutputItem, events: &mut Vec<Value>) {
        let index = self.items.len();
        events.push(json!({"type": "response.output_item.added", "output_index": index, "item": item}));
        self.items.push(item);
    }

    /// Ends the last item, if there is one.
    fn close(&mut self, ends: &'static str, events: &mut Vec<Value>) {
        match self.items.last_mut() {
            None => return,
            Some(OutputItem::Message(message)) => {
                message.status = ends;
                let part = json!(message.content.last());
                let mut done = self.of_part("response.output_text.done", "text", part["text"].clone());
                done["logprobs"] = json!([]);
                events.push(done);
                events.push(self.of_part("response.content_part.done", "part", part));
            }
            Some(OutputItem::Call(call)) => {
                call.status = ends;
                let (name, arguments) = (json!(call.name), json!(call.arguments));
                let mut done = self.of_item("response.function_call_arguments.done", "arguments", arguments);
                done["name"] = name;
                events.push(done);
            }
        }
        let (index, item) = (self.items.len() - 1, self.items.last());
        events.push(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
    }

    /// An event of the last item.
    fn of_item(&self, kind: &str, key: &str, value: Value) -> Value {
        let id = match self.items.last() {
            Some(OutputItem::Message(message)) => &message.id,
            Some(OutputItem::Call(call)) => &call.id,
            None => "",
        };
        json!({"type": kind, "item_id": id, "output_index": self.items.len().saturating_sub(1), key: value})
    }

    /// An event of the text in the last item.
    fn of_part(&self, kind: &str, key: &str, value: Value) -> Value {
        let mut event = self.of_item(kind, key, value);
        event["content_index"] = 0.into();
        event
    }
}
