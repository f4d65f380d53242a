//! A vault's storage that a page provides: an object with blocking methods, such as around the synchronous file handles of a browser's
//! origin in a worker (File System Standard, 2.6), or around the files of Node.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use longhand_phone::Storage;
use longhand_phone::vault::ReplaceError;
use send_wrapper::SendWrapper;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};

#[wasm_bindgen(typescript_custom_section)]
const TYPESCRIPT: &str = r#"
/** The files of a phone, by name. Every method blocks, and throws when it fails. One phone at a time may use them. */
export interface Storage {
    /** Where it is, for messages. */
    place(): string;
    /** The whole file; undefined when there is none. */
    read(name: string): Uint8Array | undefined;
    /** Replaces or makes the file: whole or not at all, durable when it returns. */
    replace(name: string, bytes: Uint8Array): void;
    /** Adds bytes at the end, which is at `at`; durable when it returns. */
    append(name: string, at: number, bytes: Uint8Array): void;
    /** Cuts the file to `length`; durable when it returns. */
    cut(name: string, length: number): void;
    /** Writes over a part of the file: later reads have it, and it is durable after the next sync. */
    overwrite(name: string, at: number, bytes: Uint8Array): void;
    /** Makes the file durable. */
    sync(name: string): void;
    /** Removes the file; durable when it returns. */
    remove(name: string): void;
    /** Called when the phone was stopped: another one may use the files. The page gives up those of a phone that it has freed. */
    release(): void;
}
"#;

#[wasm_bindgen]
extern "C" {
    /// The object.
    #[wasm_bindgen(typescript_type = "Storage")]
    pub type JsStorage;

    #[wasm_bindgen(method, catch)]
    fn place(this: &JsStorage) -> Result<String, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn read(this: &JsStorage, name: &str) -> Result<Option<Vec<u8>>, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn replace(this: &JsStorage, name: &str, bytes: &[u8]) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn append(this: &JsStorage, name: &str, at: f64, bytes: &[u8]) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn cut(this: &JsStorage, name: &str, length: f64) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn overwrite(this: &JsStorage, name: &str, at: f64, bytes: &[u8]) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn sync(this: &JsStorage, name: &str) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn remove(this: &JsStorage, name: &str) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn release(this: &JsStorage) -> Result<(), JsValue>;
}

/// The object as a storage. It stays on its thread, which is the only one.
pub struct JsFiles {
    object: SendWrapper<JsStorage>,
    /// Whether it was given up, whatever the object does.
    is_released: AtomicBool,
}

impl JsFiles {
    pub fn new(object: JsStorage) -> JsFiles {
        JsFiles {
            object: SendWrapper::new(object),
            is_released: false.into(),
        }
    }

    fn call<T>(&self, call: impl FnOnce(&JsStorage) -> Result<T, JsValue>) -> io::Result<T> {
        if self.is_released.load(Ordering::SeqCst) {
            return Err(io::Error::other("this phone has given its storage up"));
        }
        call(&self.object).map_err(|error| to_io(&error))
    }
}

impl Storage for JsFiles {
    fn place(&self) -> String {
        let place = self.object.place();
        place.unwrap_or_else(|_| "its storage".into())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.call(|object| object.read(name))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), ReplaceError> {
        let replaced = self.call(|object| object.replace(name, bytes));
        replaced.map_err(|error| ReplaceError {
            error,
            may_be_replaced: true,
        })
    }

    fn append(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let at = to_number(at)?;
        self.call(|object| object.append(name, at, bytes))
    }

    fn cut(&self, name: &str, length: u64) -> io::Result<()> {
        let length = to_number(length)?;
        self.call(|object| object.cut(name, length))
    }

    fn overwrite(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let at = to_number(at)?;
        self.call(|object| object.overwrite(name, at, bytes))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.call(|object| object.sync(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call(|object| object.remove(name))
    }

    fn release(&self) {
        if !self.is_released.swap(true, Ordering::SeqCst) {
            // Nothing is written any more, whether it fails or not.
            let _ = self.object.release();
        }
    }
}

/// A position in a file: a number of JavaScript has no more than 53 bits.
fn to_number(integer: u64) -> io::Result<f64> {
    match u32::try_from(integer) {
        Ok(small) => Ok(f64::from(small)),
        Err(_) => Err(io::Error::other("a file of more than 4 GiB")),
    }
}

fn to_io(error: &JsValue) -> io::Error {
    let Some(error) = error.dyn_ref::<js_sys::Error>() else {
        return io::Error::other("the storage has failed");
    };
    let name = String::from(error.name());
    let code = js_sys::Reflect::get(error, &"code".into()).ok();
    let code = code.and_then(|code| code.as_string()).unwrap_or_default();
    let message = String::from(error.message());
    match name == "QuotaExceededError" || code == "ENOSPC" {
        true => io::Error::new(io::ErrorKind::StorageFull, message),
        false => io::Error::other(message),
    }
}
