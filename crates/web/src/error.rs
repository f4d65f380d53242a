//! Errors as JavaScript gets them: an `Error` with a `code`.

use longhand_phone::PhoneError;
use longhand_proto::Code;
use wasm_bindgen::JsValue;

/// An error of the phone.
pub fn to_js(error: PhoneError) -> JsValue {
    let report = error.report();
    with_code(&report.code, &report.message)
}

/// A command that is no JSON of one.
pub fn unreadable(error: &serde_json::Error) -> JsValue {
    let message = format!("this is no command ({error}): write it as the control socket's");
    with_code(Code::BadRequest.as_str(), &message)
}

/// A network that does not exist.
pub fn unknown_network(name: &str) -> JsValue {
    let message = format!("there is no network {name}: take bitcoin, testnet4, signet or regtest");
    with_code(Code::WrongNetwork.as_str(), &message)
}

fn with_code(code: &str, message: &str) -> JsValue {
    let error = js_sys::Error::new(message);
    // Fails for no object.
    let _ = js_sys::Reflect::set(&error, &"code".into(), &code.into());
    error.into()
}
