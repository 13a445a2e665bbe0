//! Answers that tell of progress: JSON objects, each ended by a carriage return and a newline (B-api-10).

use api::ProgressMessage;
use bytes::Bytes;
use model::{Error, Result};
use tokio::sync::mpsc;

use crate::limits;
use crate::response::{self, Response};

/// A running operation: its messages, then perhaps the error that ended it.
pub type Messages = mpsc::Receiver<Result<ProgressMessage>>;

/// Answers with the messages as they come. An error before the first message is the answer's status; later ones are
/// told in a line.
pub async fn answer(mut messages: Messages) -> Result<Response> {
    let first = messages.recv().await.transpose()?;
    Ok(stream(first, messages))
}

/// As [`answer`], for operations whose status is 200 whatever happens.
pub fn answer_at_once(messages: Messages) -> Response {
    stream(None, messages)
}

fn stream(first: Option<ProgressMessage>, mut messages: Messages) -> Response {
    let (sender, chunks) = mpsc::channel(limits::STREAM_QUEUE);
    tokio::spawn(async move {
        if let Some(first) = first
            && sender.send(line(&first)).await.is_err()
        {
            return;
        }
        loop {
            let message = tokio::select! {
                message = messages.recv() => message,
                () = sender.closed() => None,
            };
            let Some(message) = message else { return };
            let failed = message.is_err();
            if sender.send(line(&message.unwrap_or_else(|error| failure(&error)))).await.is_err() || failed {
                return;
            }
        }
    });
    response::stream(response::JSON, chunks)
}

fn line(message: &ProgressMessage) -> Bytes {
    api::encode::progress_line(message).into()
}

fn failure(error: &Error) -> ProgressMessage {
    ProgressMessage::error(0, error.message())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn told(messages: Vec<Result<ProgressMessage>>, at_once: bool) -> Result<String> {
        let (sender, receiver) = mpsc::channel(8);
        for message in messages {
            sender.send(message).await.expect("room");
        }
        drop(sender);
        let response = if at_once { answer_at_once(receiver) } else { answer(receiver).await? };
        let body = response.into_body().collect().await.expect("infallible").to_bytes();
        Ok(String::from_utf8(body.to_vec()).expect("text"))
    }

    /// `pull ok` of the recorded answers.
    #[tokio::test]
    async fn messages_are_lines() {
        let messages = vec![
            Ok(ProgressMessage::status("3.14", "Pulling from library/alpine")),
            Ok(ProgressMessage::status("", "Status: Image is up to date for alpine:3.14")),
        ];
        assert_eq!(
            told(messages, false).await.expect("no error"),
            "{\"status\":\"Pulling from library/alpine\",\"id\":\"3.14\"}\r\n{\"status\":\"Status: Image is up to date for alpine:3.14\"}\r\n"
        );
    }

    /// `load garbage` of the recorded answers.
    #[tokio::test]
    async fn errors_come_early_or_in_the_stream() {
        let fail = || Err(Error::not_found("unexpected EOF"));
        assert_eq!(told(vec![fail()], false).await.expect_err("early").message(), "unexpected EOF");
        let line = "{\"errorDetail\":{\"message\":\"unexpected EOF\"},\"error\":\"unexpected EOF\"}\r\n";
        assert_eq!(told(vec![fail()], true).await.expect("in band"), line);
        let late = told(vec![Ok(ProgressMessage::stream("x")), fail()], false).await.expect("in band");
        assert_eq!(late, format!("{{\"stream\":\"x\"}}\r\n{line}"));
    }
}
