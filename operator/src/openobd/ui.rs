//! The controls of scripts: prepared answers, or a person at the gateway's terminal.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use connector_agent::cli::clean;
use connector_agent::print_line;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::answers::{AnswerError, Answers, choices, fill, label};
use super::button::{self, Press};
use super::gateway::Live;
use super::proto::Control;
use super::proto::user_interface_server::UserInterface;
use super::services::{Responses, Service};

/// The source of the answers to controls.
pub(super) enum Ui {
    /// Prepared answers.
    Prepared(Mutex<Answers>),
    /// A person, one question at a time.
    Terminal(Arc<Mutex<()>>),
    /// No person, so that only labels are shown.
    Unattended,
}

impl Ui {
    /// The prepared answers, or else the person at the terminal, if there is one.
    pub(super) fn new(answers: Option<Answers>) -> Self {
        match answers {
            Some(answers) => Self::Prepared(Mutex::new(answers)),
            None if std::io::stdin().is_terminal() => Self::Terminal(Arc::default()),
            None => Self::Unattended,
        }
    }

    /// Whether the file of answers has this control, so that no button is needed.
    fn has_own_answer(&self, label: &str) -> bool {
        match self {
            Self::Prepared(answers) => answers.lock().unwrap_or_else(PoisonError::into_inner).has(label),
            Self::Terminal(_) | Self::Unattended => false,
        }
    }

    async fn show(&self, live: &Live, is_button: bool, control: Control) -> Result<Control, Status> {
        if is_button
            && let Some(label) = button::label(&control)
            && !self.has_own_answer(label)
        {
            match button::press(live, label).await? {
                Press::Pressed => return Ok(control),
                Press::NoButton(_) if matches!(self, Self::Terminal(_)) => {}
                Press::NoButton(why) => return Err(why),
            }
        }
        let refused = |error: AnswerError| Status::failed_precondition(clean(&error.to_string()));
        match self {
            Self::Prepared(answers) => {
                let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                answers.answer(control).map_err(refused)
            }
            Self::Unattended => Answers::default().answer(control).map_err(refused),
            Self::Terminal(turn) => {
                let turn = Arc::clone(turn);
                let asked = tokio::task::spawn_blocking(move || {
                    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                    ask(control)
                });
                asked.await.map_err(|error| Status::internal(error.to_string()))?.map_err(refused)
            }
        }
    }
}

/// Asks the person at the terminal until the answer fits.
fn ask(control: Control) -> Result<Control, AnswerError> {
    let label = clean(label(&control)?);
    let choices = clean(&choices(&control));
    loop {
        if choices.is_empty() {
            print_line!("{label}");
            return Ok(control);
        }
        let mut terminal = std::io::stdout();
        let _no_terminal = write!(terminal, "{label} ({choices}): ").and_then(|()| terminal.flush());
        let mut line = String::new();
        match std::io::stdin().lock().read_line(&mut line) {
            Ok(0) | Err(_) => return Err(AnswerError::NoAnswer(label)),
            Ok(_) => {}
        }
        match fill(control.clone(), line.trim_end_matches(['\r', '\n'])) {
            Ok(answered) => return Ok(answered),
            Err(error) => print_line!("{}", clean(&error.to_string())),
        }
    }
}

#[tonic::async_trait]
impl UserInterface for Service {
    type openControlStreamStream = Responses<Control>;

    async fn open_control_stream(
        &self,
        request: Request<Streaming<Control>>,
    ) -> Result<Response<Self::openControlStreamStream>, Status> {
        let live = self.gateway.enter_unauthenticated(request.metadata())?;
        let mut inbound = request.into_inner();
        let (out, stream) = mpsc::channel(1);
        let gateway = Arc::clone(&self.gateway);
        tokio::spawn(async move {
            let showing = async {
                while let Some(control) = inbound.message().await? {
                    let answered = gateway.ui.show(&live, gateway.settings.button, control).await?;
                    if out.send(Ok(answered)).await.is_err() {
                        break;
                    }
                }
                Ok(())
            };
            let ended = tokio::select! {
                over = live.over() => over,
                () = out.closed() => Ok(()),
                shown = showing => shown,
            };
            if let Err(status) = ended {
                let _the_client_has_gone = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
