//! Programs of others: iproute2, ethtool.

use std::process::{Command, Stdio};

use super::Error;

/// A program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line(pub Vec<String>);

impl Line {
    /// From words with blanks between.
    pub fn new(text: &str) -> Line {
        Line(text.split_whitespace().map(str::to_owned).collect())
    }

    /// The whole command, as one would type it.
    pub fn text(&self) -> String {
        self.0.join(" ")
    }

    /// Runs it to its end. What it says is in the error, if it fails.
    pub fn run(&self) -> Result<String, Error> {
        let [program, arguments @ ..] = self.0.as_slice() else { return Ok(String::new()) };
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        let output = output.map_err(|error| self.failed(&error.to_string()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = [output.stderr, output.stdout].map(|b| String::from_utf8_lossy(&b).trim().to_owned());
        let said = said.iter().find(|text| !text.is_empty()).cloned();
        Err(self.failed(&said.unwrap_or_else(|| output.status.to_string())))
    }

    fn failed(&self, said: &str) -> Error {
        Error::Command { command: self.text(), said: said.to_owned() }
    }
}

/// Is there such a program?
pub fn is_there(program: &str) -> bool {
    if program.contains('/') {
        return std::path::Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// What a lab cannot do without.
pub fn need_programs() -> Result<(), Error> {
    for (program, package) in [("ip", "iproute2"), ("bridge", "iproute2"), ("ethtool", "ethtool")] {
        if !is_there(program) {
            return Err(Error::Missing { program: program.to_owned(), package });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error has the whole command and what the program said.
    #[test]
    fn errors_name_the_command_and_what_it_said() {
        assert_eq!(Line::new("echo a  b").run().unwrap(), "a b\n");
        let error = Line::new("ls /no-such-folder").run().unwrap_err().to_string();
        assert!(error.starts_with("`ls /no-such-folder` failed: ls:"), "{error}");
        let error = Line::new("false").run().unwrap_err().to_string();
        assert_eq!(error, "`false` failed: exit status: 1");
        let error = Line::new("no-such-program-here x").run().unwrap_err().to_string();
        assert!(error.starts_with("`no-such-program-here x` failed: No such file"), "{error}");
    }

    #[test]
    fn programs_are_looked_for_where_the_shell_looks() {
        assert!(
            is_there("sh")
                && is_there("/bin/sh")
                && !is_there("no-such-program-here")
                && !is_there("/bin/nothing")
        );
    }
}
