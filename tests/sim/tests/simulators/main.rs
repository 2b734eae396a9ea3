//! The simulators by themselves: the sandbox cloud, the DoIP gateway and the vehicle.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod cloud_attachments;
mod cloud_rows;
mod cloud_support;
mod cloud_violations;

mod cloud_bounds;
mod cloud_conformance;
mod cloud_details;
mod cloud_documented;
mod cloud_login;
mod cloud_portal;
mod cloud_printed;
mod cloud_process;
mod cloud_relay;
mod cloud_rest;
mod demo;
mod doip_command;
mod doip_entity;
mod doip_sockets;
mod network;
mod vehicle_bus;
mod vehicle_catalogue;
mod vehicle_command;
mod vehicle_drive;
mod vehicle_ecu;
mod vehicle_recording;
mod vehicle_replay;
