//! What others make of the definition of the command line: completions for shells, and the manual page.

use std::io;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::{Man, roff};

use super::args::Cli;
use crate::error::{Error, Result};

/// The completions of a shell.
pub(super) fn completions(shell: Shell) -> String {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    // clap_complete 4.6.11 spells a name with a hyphen in two ways for bash, and completes no flags (clap-rs/clap#6421).
    String::from_utf8_lossy(&script).replace("decagon__subcmd__lake", "decagon__lake")
}

/// The manual page: all commands are on it, each with its flags.
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
    for of in command.get_subcommands() {
        let name = of.get_bin_name().unwrap_or_else(|| of.get_name());
        page.extend(roff::Roff::new().control("SH", [name]).render().into_bytes());
        page.extend(section_of(of)?.into_bytes());
    }
    let mut examples = Vec::new();
    top.render_extra_section(&mut examples)?;
    // Its lines are as they are to be read.
    let examples = String::from_utf8_lossy(&examples).replacen(".SH EXTRA", ".SH EXAMPLES\n.nf", 1);
    page.extend(examples.into_bytes());
    page.extend(b".fi\n");
    top.render_version_section(page)
}

/// A command's own section, with those that it would have on a page of its own below it.
fn section_of(command: &Command) -> io::Result<String> {
    // The flags of all commands are told once. What the short help leaves out belongs here.
    let man = Man::new(command.clone().mut_args(|flag| {
        let told = flag.is_global_set() || flag.get_id() == "help";
        flag.hide(told).hide_short_help(false)
    }));
    let mut text = Vec::new();
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    let text = String::from_utf8_lossy(&text).replace("\n.SH ", "\n.SS ");
    Ok(text.replacen(".SH DESCRIPTION\n", "", 1))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn the_manual_has_every_command_and_flag() {
        let page = man().unwrap().replace("\\-", "-");
        let command = Cli::command();
        let mut flags = 0;
        for of in command.get_subcommands() {
            let heading = format!(".SH \"decagon-lake {}\"", of.get_name());
            let (_, section) = page.split_once(&heading).unwrap_or_else(|| panic!("{heading} is not there"));
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
