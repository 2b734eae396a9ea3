//! Commands that change the drive of a running vehicle, one a line.

use std::path::Path;
use std::str::FromStr;

use super::Drive;

/// One command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DriveCommand {
    /// `speed 50`: km/h.
    Speed(f32),
    /// `brake`: stands.
    Brake,
    /// `engine on`, `engine off`.
    Engine(bool),
    /// `abs lost`, `abs back`.
    Abs(bool),
    /// `volts 11.4`: the voltage that the board measures.
    Volts(f32),
}

impl DriveCommand {
    /// Carries out the command. `voltage_file` is the file that the simulated board reads.
    ///
    /// # Errors
    ///
    /// The voltage has no file, or the file cannot be written.
    pub fn carry_out(self, drive: &Drive, voltage_file: Option<&Path>) -> Result<(), String> {
        match self {
            Self::Speed(kmh) => drive.set_speed(kmh),
            Self::Brake => drive.set_speed(0.0),
            Self::Engine(on) => drive.set_engine(on),
            Self::Abs(works) => drive.set_abs(works),
            Self::Volts(volts) => {
                let path = voltage_file.ok_or("the vehicle was started without --voltage-file")?;
                write_volts(path, volts).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Writes a voltage as the kernel's files of analogue inputs do: in millivolts.
pub(crate) fn write_volts(path: &Path, volts: f32) -> std::io::Result<()> {
    // write to a temporary name and rename, so that a reader never sees a part of the file
    let aside = path.with_extension("part");
    std::fs::write(&aside, format!("{:.0}\n", volts * 1000.0))?;
    std::fs::rename(&aside, path)
}

impl FromStr for DriveCommand {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |text: &str, most: f32| {
            text.parse()
                .ok()
                .filter(|number| (0.0..=most).contains(number))
                .ok_or_else(|| format!("{text:?} is not a number from 0 to {most}"))
        };
        match words.as_slice() {
            ["speed", kmh] => Ok(Self::Speed(number(kmh, 300.0)?)),
            ["brake"] => Ok(Self::Brake),
            ["engine", "on"] => Ok(Self::Engine(true)),
            ["engine", "off"] => Ok(Self::Engine(false)),
            ["abs", "lost"] => Ok(Self::Abs(false)),
            ["abs", "back"] => Ok(Self::Abs(true)),
            ["volts", volts] => Ok(Self::Volts(number(volts, 60.0)?)),
            _ => Err(format!(
                "{text:?} is no command; there are: speed KMH, brake, engine on, engine off, abs lost, abs back, \
                 volts V"
            )),
        }
    }
}
