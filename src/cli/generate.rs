//! Generates completions for shells and the manual page from the definition of the command line.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::args::Cli;
use crate::error::{Error, Result};

/// The completions of a shell.
pub(super) fn completions(shell: Shell) -> String {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    // For bash, clap_complete 4.6.11 spells a name with a hyphen in two ways, and so completes no flags:
    // clap-rs/clap#6421.
    String::from_utf8_lossy(&script).replace("decagon__subcmd__lake", "decagon__lake")
}

/// The manual page: every command with its flags on one page.
///
/// # Errors
/// Never, short of a bug.
pub(super) fn man() -> Result<String> {
    let mut page = Vec::new();
    render(&mut page).map_err(|error| Error::bug("cannot write the manual page").caused_by(error))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn render(page: &mut Vec<u8>) -> io::Result<()> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let top = Man::new(command.clone());
    top.render_title(page)?;
    top.render_name_section(page)?;
    top.render_synopsis_section(page)?;
    top.render_description_section(page)?;
    top.render_options_section(page)?;
    let all = command.get_subcommands().flat_map(|command| std::iter::once(command).chain(command.get_subcommands()));
    for subcommand in all {
        let name = subcommand.get_bin_name().unwrap_or_else(|| subcommand.get_name());
        let about = subcommand.get_long_about().or_else(|| subcommand.get_about()).map(ToString::to_string);
        Roff::new().control("SH", [name]).text([roman(about.unwrap_or_default())]).to_writer(page)?;
        // The page lists the flags of all commands once. It includes those that `-h` leaves out.
        let flags = Man::new(subcommand.clone().mut_args(|flag| {
            let listed = flag.is_global_set() || flag.get_id() == "help";
            flag.hide(listed).hide_short_help(false)
        }));
        let mut options = Vec::new();
        flags.render_options_section(&mut options)?;
        // A command has one section, with its options one level below.
        page.extend(String::from_utf8_lossy(&options).replace("\n.SH ", "\n.SS ").into_bytes());
    }
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    // Keep the lines as they are.
    let mut section = Roff::new();
    section.control("SH", ["EXAMPLES"]).control("nf", []).text([roman(examples)]).control("fi", []);
    section.to_writer(page)?;
    top.render_version_section(page)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn the_manual_lists_every_command_and_flag() {
        let page = man().unwrap().replace("\\-", "-");
        let command = Cli::command();
        let mut flags = 0;
        for of in command.get_subcommands() {
            let heading = format!(".SH \"decagon-lake {}\"", of.get_name());
            let (_, section) = page.split_once(&heading).unwrap_or_else(|| panic!("{heading} is missing"));
            let section = section.split(".SH ").next().unwrap();
            for flag in of.get_arguments().filter_map(|flag| flag.get_long()) {
                flags += 1;
                assert!(section.contains(&format!("\n\\fB--{flag}\\fR")), "{}: --{flag}", of.get_name());
            }
        }
        assert!(flags > 100, "{flags} were found");
    }

    #[test]
    fn every_shell_has_completions() {
        for shell in Shell::value_variants() {
            let script = completions(*shell);
            assert!(script.contains("metrics-file") && script.contains("backfill"), "{shell}");
        }
    }
}
