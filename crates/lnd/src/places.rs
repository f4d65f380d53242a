//! Where each call is found: its path of gRPC, and its method and path of REST.

use axum::Router;
use axum::routing::{get, post};

use crate::call::{Asked, Call, Messages, Path, Told};
use crate::door::Door;
use crate::rights::Op;
use crate::{grpc, rest};

pub(crate) struct Places {
    pub router: Router,
    pub door: Door,
}

impl Places {
    /// Adds a call by its name in gRPC (`lnrpc.Lightning/GetInfo`), the permission that it needs, and its path of REST.
    pub fn one<Q: Asked, T: Told>(
        mut self,
        name: &str,
        needed: Op,
        path: Path,
        call: impl Call<Q, T>,
    ) -> Places {
        let (door, its) = (self.door.clone(), call.clone());
        let answer = move |request| grpc::one(door.clone(), needed, its.clone(), request);
        self.router = self.router.route(&format!("/{name}"), post(answer));
        let door = self.door.clone();
        let answer = move |params, request| {
            rest::one(door.clone(), needed, path, call.clone(), params, request)
        };
        self.router = match path {
            Path::Get(path) => self.router.route(path, get(answer)),
            Path::Post(path) => self.router.route(path, post(answer)),
        };
        self
    }

    /// Adds a call whose reply is a stream.
    pub fn many<Q: Asked, T: Told>(
        mut self,
        name: &str,
        needed: Op,
        path: Path,
        call: impl Call<Q, Messages<T>>,
    ) -> Places {
        let (door, its) = (self.door.clone(), call.clone());
        let answer = move |request| grpc::many(door.clone(), needed, its.clone(), request);
        self.router = self.router.route(&format!("/{name}"), post(answer));
        let door = self.door.clone();
        let answer = move |params, request| {
            rest::many(door.clone(), needed, path, call.clone(), params, request)
        };
        self.router = match path {
            Path::Get(path) => self.router.route(path, get(answer)),
            Path::Post(path) => self.router.route(path, post(answer)),
        };
        self
    }
}
