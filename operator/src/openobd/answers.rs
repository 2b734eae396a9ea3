//! The answers to the controls that scripts show. Pure.

use std::collections::HashMap;

use serde_json::Value;

use super::proto::Control;
use super::proto::control::ControlType;

/// Why a control has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("the control is empty")]
    NoControl,
    #[error("no person answers {0:?}; start the gateway in a terminal, or with --answers FILE")]
    NoAnswer(String),
    #[error("{answer:?} does not answer {label:?}: {expected}")]
    Unfit { label: String, answer: String, expected: String },
}

/// Why a file of answers is not usable.
#[derive(Debug, thiserror::Error)]
pub enum AnswersError {
    /// The file is not JSON.
    #[error("it is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The file has other JSON.
    #[error("it must be an object with the label of each control and its answer, or a list of answers")]
    Shape,
}

/// Prepared answers, by the labels of controls.
#[derive(Debug, Default)]
pub struct Answers {
    lists: HashMap<String, Vec<Value>>,
}

impl Answers {
    /// Reads `{"LABEL": ANSWER, …}`. A list has an answer for each time that the control is shown; its last one stays.
    ///
    /// # Errors
    ///
    /// A text that is no JSON object.
    pub fn parse(text: &str) -> Result<Self, AnswersError> {
        let Value::Object(map) = serde_json::from_str(text)? else { return Err(AnswersError::Shape) };
        let list = |(label, answer)| match answer {
            Value::Array(mut list) => {
                list.reverse();
                (label, list)
            }
            answer => (label, vec![answer]),
        };
        Ok(Self { lists: map.into_iter().map(list).collect() })
    }

    /// Whether the control has an answer of its own.
    pub(super) fn has(&self, label: &str) -> bool {
        self.lists.contains_key(label)
    }

    /// The next answer to a control with this label.
    fn next(&mut self, label: &str) -> Option<Value> {
        let list = self.lists.get_mut(label)?;
        if list.len() > 1 { list.pop() } else { list.last().cloned() }
    }

    /// Answers a control. Labels need no answer, and a request to continue neither.
    pub(super) fn answer(&mut self, control: Control) -> Result<Control, AnswerError> {
        let label = label(&control)?.to_owned();
        if !needs_answer(&control) {
            return Ok(control);
        }
        let answer = self.next(&label).ok_or(AnswerError::NoAnswer(label))?;
        let text = match &answer {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        fill(control, &text)
    }
}

/// The text of a control.
pub(super) fn label(control: &Control) -> Result<&str, AnswerError> {
    Ok(match control.control_type.as_ref().ok_or(AnswerError::NoControl)? {
        ControlType::ControlLabel(control) => &control.label,
        ControlType::ControlOptions(control) => &control.label,
        ControlType::ControlContinue(control) => &control.label,
        ControlType::ControlYesno(control) => &control.label,
        ControlType::ControlFreetext(control) => &control.label,
        ControlType::ControlNumber(control) => &control.label,
    })
}

/// Whether a person has to choose or to write something.
fn needs_answer(control: &Control) -> bool {
    !matches!(
        control.control_type,
        Some(ControlType::ControlLabel(_) | ControlType::ControlContinue(_)) | None
    )
}

/// What a person may answer, in words.
pub(super) fn choices(control: &Control) -> String {
    match &control.control_type {
        Some(ControlType::ControlOptions(control)) => {
            let options = control.options.iter().enumerate();
            let lines: Vec<String> = options.map(|(number, option)| format!("{number}: {option}")).collect();
            format!("one of {}", lines.join(", "))
        }
        Some(ControlType::ControlYesno(_)) => "yes or no".to_owned(),
        Some(ControlType::ControlNumber(control)) => {
            format!("a number from {} to {}", control.minimum, control.maximum)
        }
        Some(ControlType::ControlContinue(_)) => "press Enter to continue".to_owned(),
        Some(ControlType::ControlFreetext(_)) => "a text".to_owned(),
        Some(ControlType::ControlLabel(_)) | None => String::new(),
    }
}

/// Writes an answer into a control.
pub(super) fn fill(mut control: Control, answer: &str) -> Result<Control, AnswerError> {
    let unfit = |label: &str, expected| {
        Err(AnswerError::Unfit { label: label.to_owned(), answer: answer.to_owned(), expected })
    };
    let expected = choices(&control);
    let trimmed = answer.trim();
    match control.control_type.as_mut() {
        Some(ControlType::ControlOptions(options)) => {
            let by_text = options.options.iter().position(|option| option == trimmed);
            let by_number = trimmed.parse().ok().filter(|number| *number < options.options.len());
            match by_text.or(by_number) {
                Some(number) => options.answer = u32::try_from(number).ok(),
                None => return unfit(&options.label, expected),
            }
        }
        Some(ControlType::ControlYesno(yes_no)) => match trimmed.to_lowercase().as_str() {
            "yes" | "y" | "true" => yes_no.answer = Some(true),
            "no" | "n" | "false" => yes_no.answer = Some(false),
            _ => return unfit(&yes_no.label, expected),
        },
        Some(ControlType::ControlFreetext(text)) => text.answer = Some(answer.to_owned()),
        Some(ControlType::ControlNumber(numbers)) => {
            match trimmed.parse().ok().filter(|number| (numbers.minimum..=numbers.maximum).contains(number)) {
                Some(number) => numbers.answer = Some(number),
                None => return unfit(&numbers.label, expected),
            }
        }
        Some(ControlType::ControlLabel(_) | ControlType::ControlContinue(_)) => {}
        None => return Err(AnswerError::NoControl),
    }
    Ok(control)
}

#[cfg(test)]
mod tests {
    use super::super::proto::{Continue, FreeText, Label, Numbers, Options, YesNo};
    use super::*;

    fn control(control_type: ControlType) -> Control {
        Control { control_type: Some(control_type), ..Control::default() }
    }

    fn yes_no(label: &str) -> Control {
        control(ControlType::ControlYesno(YesNo { label: label.to_owned(), answer: None }))
    }

    fn answered(answers: &mut Answers, asked: Control) -> Result<String, AnswerError> {
        Ok(match answers.answer(asked)?.control_type.unwrap() {
            ControlType::ControlOptions(control) => control.answer.unwrap().to_string(),
            ControlType::ControlYesno(control) => control.answer.unwrap().to_string(),
            ControlType::ControlFreetext(control) => control.answer.unwrap(),
            ControlType::ControlNumber(control) => control.answer.unwrap().to_string(),
            ControlType::ControlLabel(_) | ControlType::ControlContinue(_) => String::new(),
        })
    }

    #[test]
    fn each_kind_of_control_gets_its_answer_from_the_file() {
        let mut answers = Answers::parse(
            r#"{"Ignition?": true, "Key": "abc ", "Odometer": 12, "Variant": "B", "Other": 0, "Twice": ["no", "yes"]}"#,
        )
        .unwrap();
        let options = |label: &str| {
            let options = vec!["A".to_owned(), "B".to_owned()];
            control(ControlType::ControlOptions(Options { label: label.to_owned(), options, answer: None }))
        };
        let number = Numbers { label: "Odometer".to_owned(), minimum: 1, maximum: 12, answer: None };
        let text = FreeText { label: "Key".to_owned(), answer: None };
        for (asked, expected) in [
            (yes_no("Ignition?"), "true"),
            (control(ControlType::ControlFreetext(text)), "abc "),
            (control(ControlType::ControlNumber(number)), "12"),
            (options("Variant"), "1"),
            (options("Other"), "0"),
            (yes_no("Twice"), "false"),
            (yes_no("Twice"), "true"),
            (yes_no("Twice"), "true"),
            (control(ControlType::ControlLabel(Label::default())), ""),
            (control(ControlType::ControlContinue(Continue::default())), ""),
        ] {
            assert_eq!(answered(&mut answers, asked.clone()).as_deref(), Ok(expected), "{asked:?}");
        }
    }

    #[test]
    fn a_missing_or_unfit_answer_is_refused_with_what_would_fit() {
        let mut answers = Answers::parse(r#"{"Odometer": 13, "Ignition?": "perhaps"}"#).unwrap();
        let number = Numbers { label: "Odometer".to_owned(), minimum: 1, maximum: 12, answer: None };
        let error = answered(&mut answers, control(ControlType::ControlNumber(number))).unwrap_err();
        assert_eq!(error.to_string(), "\"13\" does not answer \"Odometer\": a number from 1 to 12");
        assert!(answered(&mut answers, yes_no("Ignition?")).is_err());
        assert_eq!(answered(&mut answers, yes_no("New")), Err(AnswerError::NoAnswer("New".to_owned())));
        assert_eq!(answered(&mut answers, Control::default()), Err(AnswerError::NoControl));
        assert!(Answers::parse("[1]").is_err());
        assert!(Answers::parse("{").is_err());
    }
}
