# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_connector_agent_global_optspecs
    string join \n config= log-format= h/help V/version
end

function __fish_connector_agent_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_connector_agent_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_connector_agent_using_subcommand
    set -l cmd (__fish_connector_agent_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c connector-agent -n "__fish_connector_agent_needs_command" -l config -d 'The configuration file' -r -F
complete -c connector-agent -n "__fish_connector_agent_needs_command" -l log-format -d 'The format of log lines, instead of the configuration\'s' -r -f -a "text\t'Text for people'
json\t'One JSON object per line'"
complete -c connector-agent -n "__fish_connector_agent_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c connector-agent -n "__fish_connector_agent_needs_command" -s V -l version -d 'Print version'
complete -c connector-agent -n "__fish_connector_agent_needs_command" -f -a "run" -d 'Keep the connector online and relay diagnostic sessions until SIGTERM'
complete -c connector-agent -n "__fish_connector_agent_needs_command" -f -a "vin" -d 'Read the VIN once and print it'
complete -c connector-agent -n "__fish_connector_agent_needs_command" -f -a "scan" -d 'Scan for the vehicle\'s ECUs and print them'
complete -c connector-agent -n "__fish_connector_agent_needs_command" -f -a "check" -d 'Report every problem with configuration and hardware, and its remedy'
complete -c connector-agent -n "__fish_connector_agent_needs_command" -f -a "policy" -d 'Explain what may be sent to the vehicle, and when'
complete -c connector-agent -n "__fish_connector_agent_needs_command" -f -a "audit" -d 'Check or print the record of refusals, consent and programming'
complete -c connector-agent -n "__fish_connector_agent_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand run" -l config -d 'The configuration file' -r -F
complete -c connector-agent -n "__fish_connector_agent_using_subcommand run" -l log-format -d 'The format of log lines, instead of the configuration\'s' -r -f -a "text\t'Text for people'
json\t'One JSON object per line'"
complete -c connector-agent -n "__fish_connector_agent_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand vin" -l bus -d 'A bus to read from, instead of the configured buses: can0, slcan:/dev/ttyACM0, kline:/dev/ttyUSB0, doip:eth0, or doip:192.168.7.2 to ask one gateway; may be given several times' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand vin" -l budget-ms -d 'The longest time to read on CAN and DoIP, in milliseconds' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand vin" -l kline-budget-ms -d 'The longest time to read on a K-line, if CAN and DoIP give no VIN, in milliseconds' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand vin" -l bit-rate -d 'A bit rate to try, in bit/s, the likeliest first; may be given several times [default: 500000, 250000; on K-lines 10400, 9600, 15625]' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand vin" -l config -d 'The configuration file' -r -F
complete -c connector-agent -n "__fish_connector_agent_using_subcommand vin" -l log-format -d 'The format of log lines, instead of the configuration\'s' -r -f -a "text\t'Text for people'
json\t'One JSON object per line'"
complete -c connector-agent -n "__fish_connector_agent_using_subcommand vin" -l json -d 'Print one JSON object: vin_number, source, address, elapsed_ms, and conflict if ECUs disagree'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand vin" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand scan" -l bus -d 'A bus to scan: can0, slcan:/dev/ttyACM0, doip:eth0, doip:192.168.7.2 for one gateway, or the name of a configured bus; may be given several times [default: all configured buses]' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand scan" -l bit-rate -d 'A bit rate to try, in bit/s, the likeliest first; may be given several times [default: the configured bit rates, or 500000, 250000]' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand scan" -l ranges -d 'Further 11-bit identifiers to ask, such as 0x600-0x6FF or 0x6F1; may be given several times. Most vehicles use these identifiers for other messages' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand scan" -l config -d 'The configuration file' -r -F
complete -c connector-agent -n "__fish_connector_agent_using_subcommand scan" -l log-format -d 'The format of log lines, instead of the configuration\'s' -r -f -a "text\t'Text for people'
json\t'One JSON object per line'"
complete -c connector-agent -n "__fish_connector_agent_using_subcommand scan" -l json -d 'Print one JSON object for each bus: bus_name, bit_rate, outcome, elapsed_ms, and ecus as in ecusFound'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand scan" -l vehicle-stands -d 'Scan although no ECU reports that the vehicle stands. You must have made sure that it does'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand scan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand check" -l config -d 'The configuration file' -r -F
complete -c connector-agent -n "__fish_connector_agent_using_subcommand check" -l log-format -d 'The format of log lines, instead of the configuration\'s' -r -f -a "text\t'Text for people'
json\t'One JSON object per line'"
complete -c connector-agent -n "__fish_connector_agent_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and not __fish_seen_subcommand_from explain help" -l config -d 'The configuration file' -r -F
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and not __fish_seen_subcommand_from explain help" -l log-format -d 'The format of log lines, instead of the configuration\'s' -r -f -a "text\t'Text for people'
json\t'One JSON object per line'"
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and not __fish_seen_subcommand_from explain help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and not __fish_seen_subcommand_from explain help" -f -a "explain" -d 'Say in words what the policy does, or which rule decides about a request, and why'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and not __fish_seen_subcommand_from explain help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from explain" -l pdu -d 'The diagnostic request, in hexadecimal digits, such as "2E F1 90 00"' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from explain" -l bus -d 'The name of the bus' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from explain" -l id -d 'The CAN identifier of the request, in hexadecimal digits' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from explain" -l target -d 'The address of the ECU on a K-line, of TP2.0 or DoIP, in hexadecimal digits' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from explain" -l speed -d 'The vehicle\'s speed in km/h; 0 means that the vehicle has stood for two seconds. By default unknown' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from explain" -l voltage -d 'The voltage. By default unknown' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from explain" -l engine -d 'Whether the engine runs. By default unknown' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from explain" -l ignition -d 'Whether the ignition is on. By default unknown' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from explain" -l config -d 'The configuration file' -r -F
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from explain" -l log-format -d 'The format of log lines, instead of the configuration\'s' -r -f -a "text\t'Text for people'
json\t'One JSON object per line'"
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from explain" -l consent -d 'The person at the vehicle has agreed'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from explain" -l ticket -d 'The connection belongs to a ticket'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from explain" -l vin-confirmed -d 'The VIN is that of the ticket'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from help" -f -a "explain" -d 'Say in words what the policy does, or which rule decides about a request, and why'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand policy; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and not __fish_seen_subcommand_from verify show help" -l directory -d 'The state directory, instead of the configuration\'s' -r -F
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and not __fish_seen_subcommand_from verify show help" -l config -d 'The configuration file' -r -F
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and not __fish_seen_subcommand_from verify show help" -l log-format -d 'The format of log lines, instead of the configuration\'s' -r -f -a "text\t'Text for people'
json\t'One JSON object per line'"
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and not __fish_seen_subcommand_from verify show help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and not __fish_seen_subcommand_from verify show help" -f -a "verify" -d 'Check that no line was changed or removed, and print the hash of the last line'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and not __fish_seen_subcommand_from verify show help" -f -a "show" -d 'Print the entries, one sentence a line'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and not __fish_seen_subcommand_from verify show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and __fish_seen_subcommand_from verify" -l head -d 'A line with this hash must be there too, such as `audit_head` of a connection' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and __fish_seen_subcommand_from verify" -l directory -d 'The state directory, instead of the configuration\'s' -r -F
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and __fish_seen_subcommand_from verify" -l config -d 'The configuration file' -r -F
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and __fish_seen_subcommand_from verify" -l log-format -d 'The format of log lines, instead of the configuration\'s' -r -f -a "text\t'Text for people'
json\t'One JSON object per line'"
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and __fish_seen_subcommand_from show" -l last -d 'Only the last entries' -r
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and __fish_seen_subcommand_from show" -l directory -d 'The state directory, instead of the configuration\'s' -r -F
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and __fish_seen_subcommand_from show" -l config -d 'The configuration file' -r -F
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and __fish_seen_subcommand_from show" -l log-format -d 'The format of log lines, instead of the configuration\'s' -r -f -a "text\t'Text for people'
json\t'One JSON object per line'"
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Check that no line was changed or removed, and print the hash of the last line'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print the entries, one sentence a line'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand audit; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand help; and not __fish_seen_subcommand_from run vin scan check policy audit help" -f -a "run" -d 'Keep the connector online and relay diagnostic sessions until SIGTERM'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand help; and not __fish_seen_subcommand_from run vin scan check policy audit help" -f -a "vin" -d 'Read the VIN once and print it'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand help; and not __fish_seen_subcommand_from run vin scan check policy audit help" -f -a "scan" -d 'Scan for the vehicle\'s ECUs and print them'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand help; and not __fish_seen_subcommand_from run vin scan check policy audit help" -f -a "check" -d 'Report every problem with configuration and hardware, and its remedy'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand help; and not __fish_seen_subcommand_from run vin scan check policy audit help" -f -a "policy" -d 'Explain what may be sent to the vehicle, and when'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand help; and not __fish_seen_subcommand_from run vin scan check policy audit help" -f -a "audit" -d 'Check or print the record of refusals, consent and programming'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand help; and not __fish_seen_subcommand_from run vin scan check policy audit help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand help; and __fish_seen_subcommand_from policy" -f -a "explain" -d 'Say in words what the policy does, or which rule decides about a request, and why'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand help; and __fish_seen_subcommand_from audit" -f -a "verify" -d 'Check that no line was changed or removed, and print the hash of the last line'
complete -c connector-agent -n "__fish_connector_agent_using_subcommand help; and __fish_seen_subcommand_from audit" -f -a "show" -d 'Print the entries, one sentence a line'
