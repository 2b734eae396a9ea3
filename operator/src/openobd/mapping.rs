//! Buses and channels of openOBD in the words of the relay protocol, and back. Pure.

use serde_json::{Map, Value, json};

use super::proto::bus_configuration::BusDefinition;
use super::proto::{
    BusConfiguration, CanBitRate, CanBus, CanProtocol, DoipBus, DoipChannel, DoipNetworkConfiguration,
    DoipOption, IsotpChannel, KeepAlive, KlineBitRate, KlineBus, KlineChannel, KlineProtocol, Padding,
    RawChannel, Terminal15Bus, Tp20Channel, TransceiverSpeed,
};

/// The greatest CAN identifier, 29 bits.
const MAX_ID: u32 = 0x1FFF_FFFF;
/// SocketCAN's bit for a 29-bit identifier.
const EFF: u32 = 0x8000_0000;
/// The pins of the OBD connector (ISO 15031-3).
const PINS: std::ops::RangeInclusive<u32> = 1..=16;

/// Why a bus or channel of a script cannot be mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MappingError {
    #[error("bus \"{bus}\": {field} is undefined; set it")]
    Undefined { bus: String, field: &'static str },
    #[error("bus \"{bus}\": {number} is not a {field} of openOBD")]
    Unknown { bus: String, field: &'static str, number: i32 },
    #[error("bus \"{0}\" has no definition; set can_bus, kline_bus, doip_bus or terminal15_bus")]
    NoDefinition(String),
    #[error("a bus has no name")]
    NoName,
    #[error("bus \"{bus}\": {field} {number} is not a pin of the OBD connector, 1 to 16")]
    Pin { bus: String, field: &'static str, number: u32 },
    #[error("the channel has no bus name")]
    NoBus,
    #[error("the channel's {field} is 0x{number:X}, and the greatest possible one is 0x{max:X}")]
    TooGreat { field: &'static str, number: u32, max: u32 },
    #[error("the message names no channel")]
    NoChannel,
}

fn undefined(bus: &str, field: &'static str) -> MappingError {
    MappingError::Undefined { bus: bus.to_owned(), field }
}

fn unknown(bus: &str, field: &'static str, number: i32) -> MappingError {
    MappingError::Unknown { bus: bus.to_owned(), field, number }
}

fn pin(bus: &str, field: &'static str, number: u32) -> Result<u32, MappingError> {
    if PINS.contains(&number) {
        Ok(number)
    } else {
        Err(MappingError::Pin { bus: bus.to_owned(), field, number })
    }
}

/// The configuration of a bus, as `configureBuses` has it.
pub(super) fn bus(configuration: &BusConfiguration) -> Result<Value, MappingError> {
    let name = configuration.bus_name.as_str();
    if name.is_empty() {
        return Err(MappingError::NoName);
    }
    let (kind, definition) = match &configuration.bus_definition {
        Some(BusDefinition::CanBus(can)) => ("can_bus", can_bus(name, can)?),
        Some(BusDefinition::KlineBus(kline)) => ("kline_bus", kline_bus(name, kline)?),
        Some(BusDefinition::DoipBus(doip)) => ("doip_bus", doip_bus(name, doip)?),
        Some(BusDefinition::Terminal15Bus(Terminal15Bus { pin: number })) => {
            ("terminal15_bus", json!({"pin": pin(name, "pin", *number)?}))
        }
        None => return Err(MappingError::NoDefinition(name.to_owned())),
    };
    Ok(json!({"bus_name": name, kind: definition}))
}

fn can_bus(name: &str, can: &CanBus) -> Result<Value, MappingError> {
    let protocol = match CanProtocol::try_from(can.can_protocol) {
        Ok(CanProtocol::Isotp) => "isotp",
        Ok(CanProtocol::Tp20) => "tp20",
        Ok(CanProtocol::Frames) => "frames",
        Ok(CanProtocol::Undefined) => return Err(undefined(name, "can_protocol")),
        Err(_) => return Err(unknown(name, "can_protocol", can.can_protocol)),
    };
    let bit_rate = match CanBitRate::try_from(can.can_bit_rate) {
        Ok(CanBitRate::CanBitRate1000) => 1_000_000,
        Ok(CanBitRate::CanBitRate500) => 500_000,
        Ok(CanBitRate::CanBitRate250) => 250_000,
        Ok(CanBitRate::CanBitRate125) => 125_000,
        Ok(CanBitRate::CanBitRate100) => 100_000,
        Ok(CanBitRate::CanBitRate94) => 94_000,
        Ok(CanBitRate::CanBitRate833) => 83_300,
        Ok(CanBitRate::CanBitRate50) => 50_000,
        Ok(CanBitRate::CanBitRate333) => 33_300,
        Ok(CanBitRate::CanBitRate20) => 20_000,
        Ok(CanBitRate::CanBitRate10) => 10_000,
        Ok(CanBitRate::CanBitRate5) => 5_000,
        Ok(CanBitRate::Undefined) => return Err(undefined(name, "can_bit_rate")),
        Err(_) => return Err(unknown(name, "can_bit_rate", can.can_bit_rate)),
    };
    let transceiver = match can.transceiver.map(|number| (number, TransceiverSpeed::try_from(number))) {
        None | Some((_, Ok(TransceiverSpeed::High))) => "high",
        Some((_, Ok(TransceiverSpeed::Low))) => "low",
        Some((number, Err(_))) => return Err(unknown(name, "transceiver", number)),
    };
    Ok(json!({
        "pin_plus": pin(name, "pin_plus", can.pin_plus)?,
        "pin_min": pin(name, "pin_min", can.pin_min)?,
        "can_protocol": protocol,
        "can_bit_rate": bit_rate,
        "transceiver": transceiver,
    }))
}

fn kline_bus(name: &str, kline: &KlineBus) -> Result<Value, MappingError> {
    let protocol = match KlineProtocol::try_from(kline.kline_protocol) {
        Ok(KlineProtocol::Iso14230Slow) => "iso14230_slow",
        Ok(KlineProtocol::Iso14230Fast) => "iso14230_fast",
        Ok(KlineProtocol::Undefined) => return Err(undefined(name, "kline_protocol")),
        Err(_) => return Err(unknown(name, "kline_protocol", kline.kline_protocol)),
    };
    let bit_rate = match KlineBitRate::try_from(kline.kline_bit_rate) {
        Ok(KlineBitRate::KlineBitRate9600) => 9600,
        Ok(KlineBitRate::KlineBitRate10400) => 10_400,
        Ok(KlineBitRate::KlineBitRate15625) => 15_625,
        Ok(KlineBitRate::Undefined) => return Err(undefined(name, "kline_bit_rate")),
        Err(_) => return Err(unknown(name, "kline_bit_rate", kline.kline_bit_rate)),
    };
    Ok(json!({"pin": pin(name, "pin", kline.pin)?, "kline_protocol": protocol, "kline_bit_rate": bit_rate}))
}

fn doip_bus(name: &str, doip: &DoipBus) -> Result<Value, MappingError> {
    let option = match DoipOption::try_from(doip.doip_option) {
        Ok(DoipOption::DoipOption1) => 1,
        Ok(DoipOption::DoipOption2) => 2,
        Ok(DoipOption::Undefined) => return Err(undefined(name, "doip_option")),
        Err(_) => return Err(unknown(name, "doip_option", doip.doip_option)),
    };
    let network = match DoipNetworkConfiguration::try_from(doip.doip_network_configuration) {
        Ok(DoipNetworkConfiguration::Undefined) => {
            return Err(undefined(name, "doip_network_configuration"));
        }
        // the relay accepts 1 to 9 for the vendor's 3001 to 3009, also from connectors of the first version
        Ok(number) => number as i32 - DoipNetworkConfiguration::DoipNetworkConfiguration1 as i32 + 1,
        Err(_) => {
            return Err(unknown(name, "doip_network_configuration", doip.doip_network_configuration));
        }
    };
    Ok(json!({"doip_option": option, "doip_network_configuration": network}))
}

/// Whether two buses use the same pins, so that the later one replaces the earlier one.
pub(super) fn same_pins(one: &BusConfiguration, two: &BusConfiguration) -> bool {
    match (&one.bus_definition, &two.bus_definition) {
        (Some(BusDefinition::CanBus(one)), Some(BusDefinition::CanBus(two))) => {
            (one.pin_plus, one.pin_min) == (two.pin_plus, two.pin_min)
        }
        (Some(BusDefinition::KlineBus(one)), Some(BusDefinition::KlineBus(two))) => one.pin == two.pin,
        (Some(BusDefinition::Terminal15Bus(one)), Some(BusDefinition::Terminal15Bus(two))) => {
            one.pin == two.pin
        }
        (Some(BusDefinition::DoipBus(one)), Some(BusDefinition::DoipBus(two))) => {
            one.doip_option == two.doip_option
        }
        _ => false,
    }
}

fn bus_name(name: &str) -> Result<&str, MappingError> {
    if name.is_empty() { Err(MappingError::NoBus) } else { Ok(name) }
}

/// An identifier above 0x7FF is a 29-bit one; a smaller 29-bit one has SocketCAN's EFF bit, as in a list of ECUs.
fn identifier(field: &'static str, number: u32) -> Result<u32, MappingError> {
    at_most(field, number & !EFF, MAX_ID).map(|_| number)
}

fn at_most(field: &'static str, number: u32, max: u32) -> Result<u32, MappingError> {
    if number <= max { Ok(number) } else { Err(MappingError::TooGreat { field, number, max }) }
}

/// The configuration of a channel: the kind's name in `openChannel`, and its fields.
pub(super) type ChannelFields = (&'static str, Value);

fn fields(bus: &str, rest: Value) -> Value {
    let mut map = Map::from_iter([("bus_name".to_owned(), bus.into())]);
    if let Value::Object(rest) = rest {
        map.extend(rest.into_iter().filter(|(_, value)| !value.is_null()));
    }
    Value::Object(map)
}

/// An ISO-TP channel. Absent padding is enabled, and absent keep-alive too: scripts rely on their ECU's session staying.
pub(super) fn isotp(channel: &IsotpChannel) -> Result<ChannelFields, MappingError> {
    let bus = bus_name(&channel.bus_name)?;
    let padding = channel.padding.unwrap_or_default();
    let padding = match Padding::try_from(padding) {
        Ok(Padding::Undefined | Padding::Enabled) => "enabled",
        Ok(Padding::Detection) => "detection",
        Ok(Padding::Disabled) => "disabled",
        Ok(Padding::SetFromEcu) => "from-ecu",
        Ok(Padding::SetTowardsEcu) => "toward-ecu",
        Err(_) => return Err(unknown(bus, "padding", padding)),
    };
    let keep_alive = channel.keep_alive.unwrap_or_default();
    let keep_alive = match KeepAlive::try_from(keep_alive) {
        Ok(KeepAlive::Undefined | KeepAlive::Enabled) => "enabled",
        Ok(KeepAlive::Disabled) => "disabled",
        Err(_) => return Err(unknown(bus, "keep_alive", keep_alive)),
    };
    let address =
        |field, address: Option<u32>| address.map(|number| at_most(field, number, 0xFF)).transpose();
    if channel.request_id == 0 {
        return Err(undefined(bus, "request_id"));
    }
    // the field is not optional: without a response identifier, the channel is functional
    let response = Some(channel.response_id).filter(|number| *number != 0);
    let rest = json!({
        "request_id": identifier("request_id", channel.request_id)?,
        "response_id": response.map(|number| identifier("response_id", number)).transpose()?,
        "extended_request_address": address("extended_request_address", channel.extended_request_address)?,
        "extended_response_address": address("extended_response_address", channel.extended_response_address)?,
        "padding": padding,
        "keep_alive": keep_alive,
    });
    Ok(("isotp_channel", fields(bus, rest)))
}

/// A channel of frames.
pub(super) fn raw(channel: &RawChannel) -> Result<ChannelFields, MappingError> {
    let id = |field, id: Option<u32>| id.map(|number| identifier(field, number)).transpose();
    let rest = json!({
        "request_id": id("request_id", channel.request_id)?,
        "response_id": id("response_id", channel.response_id)?,
    });
    Ok(("raw_channel", fields(bus_name(&channel.bus_name)?, rest)))
}

/// A TP2.0 channel.
pub(super) fn tp20(channel: &Tp20Channel) -> Result<ChannelFields, MappingError> {
    let rest = json!({
        "logical_address": at_most("logical_address", channel.logical_address, 0xFF)?,
    });
    Ok(("tp20_channel", fields(bus_name(&channel.bus_name)?, rest)))
}

/// A channel on a K-line.
pub(super) fn kline(channel: &KlineChannel) -> Result<ChannelFields, MappingError> {
    let keyword = match &channel.keyword {
        Some(keyword) => json!({
            "key_byte_1": at_most("key_byte_1", keyword.key_byte_1, 0xFF)?,
            "key_byte_2": at_most("key_byte_2", keyword.key_byte_2, 0xFF)?,
        }),
        None => Value::Null,
    };
    let rest = json!({
        "ecu_id": at_most("ecu_id", channel.ecu_id, 0xFF)?,
        "keyword": keyword,
    });
    Ok(("kline_channel", fields(bus_name(&channel.bus_name)?, rest)))
}

/// A DoIP channel. Its sessions are kept alive like those of an ISO-TP channel.
pub(super) fn doip(channel: &DoipChannel) -> Result<ChannelFields, MappingError> {
    let rest = json!({
        "gateway_id": at_most("gateway_id", channel.gateway_id, 0xFFFF)?,
        "tester_id": at_most("tester_id", channel.tester_id, 0xFFFF)?,
        "ecu_id": at_most("ecu_id", channel.ecu_id, 0xFFFF)?,
        "keep_alive": "enabled",
    });
    Ok(("doip_channel", fields(bus_name(&channel.bus_name)?, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, definition: BusDefinition) -> BusConfiguration {
        BusConfiguration { bus_name: name.to_owned(), bus_definition: Some(definition) }
    }

    fn can(change: impl FnOnce(&mut CanBus)) -> Result<Value, MappingError> {
        let mut can =
            CanBus { pin_plus: 6, pin_min: 14, can_protocol: 1, can_bit_rate: 2, transceiver: None };
        change(&mut can);
        bus(&named("HS", BusDefinition::CanBus(can)))
    }

    #[test]
    fn every_value_of_a_can_bus_is_mapped_or_refused_with_the_field() {
        let rates = [
            1_000_000, 500_000, 250_000, 125_000, 100_000, 94_000, 83_300, 50_000, 33_300, 20_000, 10_000,
            5_000,
        ];
        for (number, rate) in (1..).zip(rates) {
            assert_eq!(can(|can| can.can_bit_rate = number).unwrap()["can_bus"]["can_bit_rate"], rate);
        }
        for (number, protocol) in [(1, "isotp"), (2, "tp20"), (3, "frames")] {
            assert_eq!(can(|can| can.can_protocol = number).unwrap()["can_bus"]["can_protocol"], protocol);
        }
        for (number, transceiver) in [(None, "high"), (Some(1), "high"), (Some(0), "low")] {
            assert_eq!(can(|can| can.transceiver = number).unwrap()["can_bus"]["transceiver"], transceiver);
        }
        for (refused, field) in [
            (can(|can| can.can_bit_rate = 0), "can_bit_rate"),
            (can(|can| can.can_bit_rate = 13), "can_bit_rate"),
            (can(|can| can.can_protocol = 0), "can_protocol"),
            (can(|can| can.can_protocol = 4), "can_protocol"),
            (can(|can| can.transceiver = Some(2)), "transceiver"),
            (can(|can| can.pin_plus = 0), "pin_plus"),
            (can(|can| can.pin_min = 17), "pin_min"),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("HS"), "{error}");
        }
    }

    #[test]
    fn every_value_of_a_kline_is_mapped_or_refused() {
        let kline = |kline_protocol, kline_bit_rate, pin| {
            bus(&named("K", BusDefinition::KlineBus(KlineBus { pin, kline_protocol, kline_bit_rate })))
        };
        for (number, protocol) in [(1003, "iso14230_slow"), (1004, "iso14230_fast")] {
            for (code, rate) in [(7, 9600), (11, 10_400), (18, 15_625)] {
                let expected = json!({"bus_name": "K", "kline_bus":
                    {"pin": 7, "kline_protocol": protocol, "kline_bit_rate": rate}});
                assert_eq!(kline(number, code, 7).unwrap(), expected);
            }
        }
        for refused in
            [kline(0, 7, 7), kline(1005, 7, 7), kline(1003, 0, 7), kline(1003, 8, 7), kline(1003, 7, 0)]
        {
            assert!(refused.is_err(), "{refused:?}");
        }
    }

    #[test]
    fn every_value_of_a_doip_bus_is_mapped_or_refused() {
        let doip = |doip_option, doip_network_configuration| {
            bus(&named("E", BusDefinition::DoipBus(DoipBus { doip_option, doip_network_configuration })))
        };
        for option in 1..=2 {
            for network in 1..=9 {
                let expected = json!({"bus_name": "E", "doip_bus":
                    {"doip_option": option, "doip_network_configuration": network}});
                assert_eq!(doip(option, 3000 + network).unwrap(), expected);
            }
        }
        for refused in [doip(0, 3001), doip(3, 3001), doip(1, 0), doip(1, 3010), doip(1, 1)] {
            assert!(refused.is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_bus_without_a_name_or_a_definition_is_refused() {
        let empty = BusConfiguration { bus_name: "HS".to_owned(), bus_definition: None };
        assert_eq!(bus(&empty), Err(MappingError::NoDefinition("HS".to_owned())));
        let nameless = named("", BusDefinition::Terminal15Bus(Terminal15Bus { pin: 1 }));
        assert_eq!(bus(&nameless), Err(MappingError::NoName));
        let named = named("T", BusDefinition::Terminal15Bus(Terminal15Bus { pin: 1 }));
        assert_eq!(bus(&named).unwrap(), json!({"bus_name": "T", "terminal15_bus": {"pin": 1}}));
    }

    #[test]
    fn buses_with_the_same_pins_replace_each_other() {
        let can = |plus| {
            let can = CanBus { pin_plus: plus, pin_min: 14, ..CanBus::default() };
            named("x", BusDefinition::CanBus(can))
        };
        let kline = |pin| named("x", BusDefinition::KlineBus(KlineBus { pin, ..KlineBus::default() }));
        let doip = |doip_option| {
            named("x", BusDefinition::DoipBus(DoipBus { doip_option, doip_network_configuration: 0 }))
        };
        let t15 = |pin| named("x", BusDefinition::Terminal15Bus(Terminal15Bus { pin }));
        for (one, two, expected) in [
            (can(6), can(6), true),
            (can(6), can(3), false),
            (kline(7), kline(7), true),
            (kline(7), kline(15), false),
            (doip(1), doip(1), true),
            (doip(1), doip(2), false),
            (t15(1), t15(1), true),
            (t15(1), kline(1), false),
        ] {
            assert_eq!(same_pins(&one, &two), expected, "{one:?} {two:?}");
        }
    }

    #[test]
    fn every_value_of_an_isotp_channel_is_mapped_or_refused() {
        let map = |change: &dyn Fn(&mut IsotpChannel)| {
            let mut channel = IsotpChannel {
                bus_name: "HS".to_owned(),
                request_id: 0x7E0,
                response_id: 0x7E8,
                ..IsotpChannel::default()
            };
            change(&mut channel);
            isotp(&channel)
        };
        let plain = json!({"bus_name": "HS", "request_id": 0x7E0, "response_id": 0x7E8, "padding": "enabled",
            "keep_alive": "enabled"});
        assert_eq!(map(&|_| {}), Ok(("isotp_channel", plain)));
        for (number, padding) in [
            (0, "enabled"),
            (1, "enabled"),
            (2, "detection"),
            (3, "disabled"),
            (4, "from-ecu"),
            (5, "toward-ecu"),
        ] {
            assert_eq!(map(&|channel| channel.padding = Some(number)).unwrap().1["padding"], padding);
        }
        for (number, keep_alive) in [(0, "enabled"), (1, "enabled"), (2, "disabled")] {
            assert_eq!(
                map(&|channel| channel.keep_alive = Some(number)).unwrap().1["keep_alive"],
                keep_alive
            );
        }
        let (_, functional) = map(&|channel| channel.response_id = 0).unwrap();
        assert!(functional.get("response_id").is_none());
        let (_, extended) = map(&|channel| channel.extended_request_address = Some(0xF1)).unwrap();
        assert_eq!(extended["extended_request_address"], 0xF1);
        for refused in [
            map(&|channel| channel.padding = Some(6)),
            map(&|channel| channel.keep_alive = Some(3)),
            map(&|channel| channel.request_id = 0x2000_0000),
            map(&|channel| channel.extended_response_address = Some(0x100)),
            map(&|channel| channel.bus_name.clear()),
        ] {
            assert!(refused.is_err(), "{refused:?}");
        }
    }

    #[test]
    fn the_other_kinds_of_channel_are_mapped_or_refused() {
        let name = || "B".to_owned();
        let raw_channel =
            |request_id, response_id| raw(&RawChannel { bus_name: name(), request_id, response_id });
        assert_eq!(raw_channel(None, None), Ok(("raw_channel", json!({"bus_name": "B"}))));
        let both = json!({"bus_name": "B", "request_id": 1, "response_id": 0x18DA_F110});
        assert_eq!(raw_channel(Some(1), Some(0x18DA_F110)), Ok(("raw_channel", both)));
        assert!(raw_channel(Some(u32::MAX), None).is_err());
        let tp20_channel = |logical_address| tp20(&Tp20Channel { bus_name: name(), logical_address });
        assert_eq!(tp20_channel(1), Ok(("tp20_channel", json!({"bus_name": "B", "logical_address": 1}))));
        assert!(tp20_channel(256).is_err());
        let keyword = super::super::proto::Keyword { key_byte_1: 0x8F, key_byte_2: 0xE9 };
        let kline_channel = |ecu_id, keyword| kline(&KlineChannel { bus_name: name(), ecu_id, keyword });
        let expected =
            json!({"bus_name": "B", "ecu_id": 0x33, "keyword": {"key_byte_1": 0x8F, "key_byte_2": 0xE9}});
        assert_eq!(kline_channel(0x33, Some(keyword)), Ok(("kline_channel", expected)));
        assert_eq!(
            kline_channel(0x11, None),
            Ok(("kline_channel", json!({"bus_name": "B", "ecu_id": 0x11})))
        );
        assert!(kline_channel(0x100, None).is_err());
        let ethernet =
            |ecu_id| doip(&DoipChannel { bus_name: name(), gateway_id: 0x4010, tester_id: 0x0E80, ecu_id });
        let expected = json!({"bus_name": "B", "gateway_id": 0x4010, "tester_id": 0x0E80, "ecu_id": 0x4011,
            "keep_alive": "enabled"});
        assert_eq!(ethernet(0x4011), Ok(("doip_channel", expected)));
        assert!(ethernet(0x10000).is_err());
    }
}
