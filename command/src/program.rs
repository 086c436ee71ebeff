//! From the command line to the exit code.

use std::process::ExitCode;

use clap::{ArgMatches, Parser};

use crate::output;

/// Reads the command line, has its `work` done, and says how that ended; an error ends with its `code`. What clap itself
/// refuses, it says in its own words, with or without `--json`: until the line is understood nobody knows what it asks.
pub fn run<C: Parser>(
    work: impl FnOnce(C) -> anyhow::Result<ExitCode>,
    code: impl FnOnce(&anyhow::Error) -> u8,
) -> ExitCode {
    let mut command = C::command();
    let program = command.get_name().to_owned();
    let matches = command.get_matches_mut();
    let read = C::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit());
    let done = work(read).and_then(|code| output::check().map(|()| code));
    done.unwrap_or_else(|error| output::fail(&program, wants_json(&matches), &format!("{error:#}"), code(&error)))
}

/// Whether the verb takes `--json`, and it is given.
fn wants_json(matches: &ArgMatches) -> bool {
    match matches.subcommand() {
        Some((_, below)) => wants_json(below),
        None => matches!(matches.try_get_one::<bool>("json"), Ok(Some(true))),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction, Command};

    use super::*;

    #[test]
    fn json_is_asked_for_at_the_verb_however_deep_it_stands() {
        let json = || Arg::new("json").long("json").action(ArgAction::SetTrue);
        let list = Command::new("list").arg(json());
        let command = Command::new("program")
            .subcommand(Command::new("noun").subcommand(list))
            .subcommand(Command::new("status").arg(json()))
            .subcommand(Command::new("run"));
        for (line, expected) in [
            (&["noun", "list", "--json"][..], true),
            (&["noun", "list"], false),
            (&["status", "--json"], true),
            (&["status"], false),
            (&["run"], false),
        ] {
            let matches = command.clone().no_binary_name(true).try_get_matches_from(line).unwrap();
            assert_eq!(wants_json(&matches), expected, "{line:?}");
        }
    }
}
