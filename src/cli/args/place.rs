//! Looks at a path or an address before it is taken for one: what was typed or pasted along with it is refused.

use std::ffi::{OsStr, OsString};

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

use crate::stray;

/// Parses a path or an address with another parser, if nothing is in it that is not meant to be.
#[derive(Clone)]
pub(in crate::cli) struct PlaceParser<P>(P);

/// Looks at a value first, and leaves the rest to `parser`.
pub(in crate::cli) fn place<P: TypedValueParser>(parser: P) -> PlaceParser<P> {
    PlaceParser(parser)
}

impl<P: TypedValueParser> TypedValueParser for PlaceParser<P> {
    type Value = P::Value;

    fn parse_ref(&self, command: &Command, flag: Option<&Arg>, value: &OsStr) -> Result<P::Value, Error> {
        self.parse(command, flag, value.to_owned())
    }

    fn parse(&self, command: &Command, flag: Option<&Arg>, value: OsString) -> Result<P::Value, Error> {
        let Some(stray) = stray::in_place(&value.to_string_lossy()) else { return self.0.parse(command, flag, value) };
        // The value itself is not shown: it may hold a password.
        let long = flag.and_then(Arg::get_long).unwrap_or_default();
        let variable = flag.and_then(Arg::get_env).map(OsStr::to_string_lossy).unwrap_or_default();
        let message = format!("--{long} ({variable}) {}\nhint: {}\n", stray.what, stray.hint);
        Err(Error::raw(ErrorKind::ValueValidation, message).with_cmd(command))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::cli::args::Cli;

    /// Every flag that takes a path or an address refuses what is not meant to be in it.
    #[test]
    fn no_place_is_taken_with_quotes_around_it() {
        let mut seen = 0;
        for of in Cli::command().get_subcommands() {
            for flag in of.get_arguments() {
                let names = flag.get_value_names().unwrap_or_default();
                if !names.iter().any(|name| ["URL", "FILE", "DIR", "PATH"].contains(&name.as_str())) {
                    continue;
                }
                seen += 1;
                for value in ["\"x\"", "x ", "~/x", "$HOME/x"] {
                    let typed = format!("--{}={value}", flag.get_long().unwrap());
                    let error =
                        Cli::command().try_get_matches_from(["decagon-lake", of.get_name(), &typed]).unwrap_err();
                    let told = error.to_string();
                    let variable = flag.get_env().unwrap().to_string_lossy();
                    assert!(told.contains("hint: ") && told.contains(variable.as_ref()), "{typed}: {told}");
                    assert_eq!(error.exit_code(), 2);
                }
            }
        }
        assert!(seen > 20, "{seen} were found");
    }
}
