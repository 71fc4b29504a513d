//! The command line, taken apart by the command that runs.
//!
//! # Invariants
//! - What a command did not ask for is refused by [`Arguments::finish`], so a misspelt option never passes silently.

use std::str::FromStr;

use crate::failure::Failure;

/// What is left of the command line.
#[derive(Debug)]
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    pub(crate) fn from_command_line() -> Self {
        Self(std::env::args().skip(1).collect())
    }

    /// Takes the first word that is no option.
    pub(crate) fn positional(&mut self) -> Option<String> {
        let help = |word: &String| matches!(word.as_str(), "--help" | "-h");
        let at = self
            .0
            .iter()
            .position(|word| !word.starts_with('-') || help(word))?;
        Some(self.0.remove(at))
    }

    /// Takes `name`; whether it was there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let at = self.0.iter().position(|word| word == name);
        at.map(|at| self.0.remove(at)).is_some()
    }

    /// Takes `name` and the word behind it.
    pub(crate) fn value<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Failure> {
        let Some(at) = self.0.iter().position(|word| word == name) else {
            return Ok(None);
        };
        if at + 1 == self.0.len() {
            return Err(Failure::new(format!("{name} needs a value")));
        }
        let word = self.0.remove(at + 1);
        self.0.remove(at);
        match word.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Failure::new(format!("{name} does not take `{word}`"))),
        }
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self.0.first() {
            None => Ok(()),
            Some(word) => Err(Failure::new(format!(
                "`{word}` is no argument of this command"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Arguments {
        Arguments(line.split_whitespace().map(String::from).collect())
    }

    #[test]
    fn options_are_taken_in_any_order() {
        let mut arguments = of("--json out.json net --rounds 7 --missing");
        assert_eq!(
            arguments.value::<String>("--json").unwrap().as_deref(),
            Some("out.json")
        );
        assert_eq!(arguments.value::<usize>("--rounds").unwrap(), Some(7));
        assert!(arguments.flag("--missing"));
        assert!(!arguments.flag("--missing"));
        assert_eq!(arguments.positional().as_deref(), Some("net"));
        arguments.finish().unwrap();
    }

    #[test]
    fn what_nobody_took_is_refused() {
        let failure = of("--rouns 7").finish().unwrap_err();
        assert!(failure.to_string().contains("--rouns"), "{failure}");
    }

    #[test]
    fn a_value_that_is_missing_or_wrong_is_refused() {
        assert!(of("--rounds").value::<usize>("--rounds").is_err());
        assert!(of("--rounds many").value::<usize>("--rounds").is_err());
    }
}
