//! Refuses a path or an address that contains characters typed or pasted by mistake.

use std::ffi::{OsStr, OsString};

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

use crate::stray;

/// Parses a path or an address with another parser after it has found nothing stray in it.
#[derive(Clone)]
pub(super) struct PlaceParser<P>(P);

/// Refuses stray characters, then leaves the value to `parser`.
pub(super) fn place<P: TypedValueParser>(parser: P) -> PlaceParser<P> {
    PlaceParser(parser)
}

impl<P: TypedValueParser> TypedValueParser for PlaceParser<P> {
    type Value = P::Value;

    fn parse_ref(&self, command: &Command, flag: Option<&Arg>, value: &OsStr) -> Result<P::Value, Error> {
        self.parse(command, flag, value.to_owned())
    }

    fn parse(&self, command: &Command, flag: Option<&Arg>, value: OsString) -> Result<P::Value, Error> {
        let Some(stray) = stray::in_place(&value.to_string_lossy()) else { return self.0.parse(command, flag, value) };
        // The message does not show the value, because it may hold a password.
        let long = flag.and_then(Arg::get_long).unwrap_or_default();
        let variable = flag.and_then(Arg::get_env).map(OsStr::to_string_lossy).unwrap_or_default();
        let message = format!("--{long} ({variable}) {}\nhint: {}\n", stray.what, stray.hint);
        Err(Error::raw(ErrorKind::ValueValidation, message).with_cmd(command))
    }
}
