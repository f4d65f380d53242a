//! Calls over REST, as lnd's gateway answers them: fields by their names in the proto files, all of them written out.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

use crate::call::{Asked, Call, MOST_REQUEST_BYTES, Messages, Path, Told};
use crate::door::Door;
use crate::json;
use crate::rights::Op;
use crate::status::{bad_input, status};

/// The parts of a path that vary.
pub(crate) type Params = Result<RawPathParams, RawPathParamsRejection>;

/// Answers a call with one reply.
pub(crate) async fn one<Q: Asked, T: Told>(
    door: Door,
    needed: Op,
    path: Path,
    call: impl Call<Q, T>,
    params: Params,
    request: Request,
) -> Response {
    let answer = async {
        let caller = door.enter(request.headers(), Some(needed))?;
        let asked = asked(path, params, request).await?;
        text(&call(Arc::clone(&caller.node), asked).await?)
    };
    match answer.await {
        Ok(text) => reply(StatusCode::OK, Body::from(text)),
        Err(refused) => error(&refused),
    }
}

/// Answers a call whose reply is a stream: a line for each message, `{"result":…}`, and for an error `{"error":…}` as the last one.
pub(crate) async fn many<Q: Asked, T: Told>(
    door: Door,
    needed: Op,
    path: Path,
    call: impl Call<Q, Messages<T>>,
    params: Params,
    request: Request,
) -> Response {
    let begun = async {
        let caller = door.enter(request.headers(), Some(needed))?;
        let asked = asked(path, params, request).await?;
        let messages = call(Arc::clone(&caller.node), asked).await?;
        let mut messages = caller.keep(messages).boxed();
        // The status of the reply is that of the first message.
        match messages.next().await {
            Some(first) => Ok(futures::stream::iter([Ok(first?)]).chain(messages).boxed()),
            None => Ok(messages),
        }
    };
    match begun.await {
        Ok(messages) => {
            let lines = messages.map(|message| Ok::<_, std::convert::Infallible>(line(message)));
            reply(StatusCode::OK, Body::from_stream(lines))
        }
        Err(refused) => {
            let body = json!({ "error": described(&refused) });
            reply(http(refused.code()), Body::from(body.to_string()))
        }
    }
}

fn line<T: Told>(message: Result<T, Status>) -> String {
    let written = message.and_then(|message| text(&message));
    match written {
        Ok(text) => format!("{{\"result\":{text}}}\n"),
        Err(status) => format!("{}\n", json!({ "error": described(&status) })),
    }
}

fn text(message: &impl Serialize) -> Result<String, Status> {
    serde_json::to_string(message)
        .map_err(|_| status(Code::Internal, "the reply cannot be written: report this"))
}

/// An error as the reply.
pub(crate) fn error(refused: &Status) -> Response {
    reply(
        http(refused.code()),
        Body::from(described(refused).to_string()),
    )
}

fn described(refused: &Status) -> Value {
    json!({ "code": refused.code() as i32, "message": refused.message(), "details": [] })
}

fn reply(status: StatusCode, body: Body) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

/// The same as those of lnd's gateway.
fn http(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The message of a request: its fields are in the body, or in the query, and in the path.
async fn asked<Q: Asked>(path: Path, params: Params, request: Request) -> Result<Q, Status> {
    let params = params.map_err(|_| bad_input("the path is no UTF-8 text"))?;
    let mut fields = match path {
        Path::Get(_) => query(request.uri().query().unwrap_or_default())?,
        Path::Post(_) => body(request.into_body()).await?,
    };
    for (name, value) in &params {
        fields.insert(name.to_owned(), value.into());
    }
    let read = json::read(Value::Object(fields));
    read.map_err(|error| bad_input(format!("the request cannot be read: {error}")))
}

async fn body(body: Body) -> Result<Map<String, Value>, Status> {
    let bytes = to_bytes(body, MOST_REQUEST_BYTES).await;
    let bytes = bytes.map_err(|_| {
        bad_input(format!(
            "the body is longer than {MOST_REQUEST_BYTES} bytes, or broke off"
        ))
    })?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    let read = serde_json::from_slice(&bytes);
    read.map_err(|error| bad_input(format!("the body is no JSON object: {error}")))
}

/// The parameters of a query. Hyper bounds the length of the address.
fn query(query: &str) -> Result<Map<String, Value>, Status> {
    let mut fields = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name)?, decoded(value)?);
        if fields.contains_key(&name) {
            return Err(bad_input("a parameter is given twice"));
        }
        fields.insert(name, value.into());
    }
    Ok(fields)
}

fn decoded(text: &str) -> Result<String, Status> {
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8();
    let decoded = decoded.map_err(|_| bad_input("a parameter is no UTF-8 text"))?;
    Ok(decoded.into_owned())
}
