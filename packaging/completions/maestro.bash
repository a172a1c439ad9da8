# SPDX-License-Identifier: Apache-2.0
# Made from the table of commands; do not edit.

_maestro_words() {
    # what completes the word: names of the daemon, files, or the given words
    case "$1" in
        jobs|composites|templates|images|tasks) mapfile -t COMPREPLY < <(compgen -W "$(maestro "${socket[@]}" _names "$1" 2>/dev/null)" -- "$cur") ;;
        files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        dirs) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
        commands) mapfile -t COMPREPLY < <(compgen -c -- "$cur") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur") ;;
    esac
}

_maestro() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD - 1]}"
    local command="" count=0 i word socket=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        case "$command:$word" in
            *:--socket) socket=(--socket "${COMP_WORDS[i + 1]}"); ((i++)) ;;
            "apply:--timeout") ((i++)) ;;
            "status:--state") ((i++)) ;;
            "status:--composite") ((i++)) ;;
            "status:--interval") ((i++)) ;;
            "start:--timeout") ((i++)) ;;
            "stop:--timeout") ((i++)) ;;
            "restart:--timeout") ((i++)) ;;
            "reload:--timeout") ((i++)) ;;
            "pause:--timeout") ((i++)) ;;
            "resume:--timeout") ((i++)) ;;
            "kill:-s"|"kill:--signal") ((i++)) ;;
            "enable:--timeout") ((i++)) ;;
            "disable:--timeout") ((i++)) ;;
            "lock:--reason") ((i++)) ;;
            "logs:-n"|"logs:--lines") ((i++)) ;;
            "logs:--since") ((i++)) ;;
            "logs:--until") ((i++)) ;;
            "top:--interval") ((i++)) ;;
            "top:--sort") ((i++)) ;;
            "events:--since") ((i++)) ;;
            "events:-n"|"events:--lines") ((i++)) ;;
            "task:--timeout") ((i++)) ;;
            "image install:--sha256") ((i++)) ;;
            "image install:--job") ((i++)) ;;
            "image install:--image-version") ((i++)) ;;
            "image install:--type") ((i++)) ;;
            "image install:--signature") ((i++)) ;;
            "image pack:-o"|"image pack:--output") ((i++)) ;;
            "image pack:--job") ((i++)) ;;
            "image pack:--image-version") ((i++)) ;;
            "image pack:--type") ((i++)) ;;
            "metrics:--textfile") ((i++)) ;;
            *:-*) ;;
            :config|:template|:image) command="$word" ;;
            config:*|template:*|image:*) command="$command $word" ;;
            :*) command="$word" ;;
            *) ((count++)) ;;
        esac
    done
    case "$command:$prev" in
        *:--socket) _maestro_words files; return ;;
        "apply:--timeout") _maestro_words ""; return ;;
        "status:--state") _maestro_words "never_ran waiting_for_deps starting running stopping stopped restarting failed"; return ;;
        "status:--composite") _maestro_words "composites"; return ;;
        "status:--interval") _maestro_words ""; return ;;
        "start:--timeout") _maestro_words ""; return ;;
        "stop:--timeout") _maestro_words ""; return ;;
        "restart:--timeout") _maestro_words ""; return ;;
        "reload:--timeout") _maestro_words ""; return ;;
        "pause:--timeout") _maestro_words ""; return ;;
        "resume:--timeout") _maestro_words ""; return ;;
        "kill:-s"|"kill:--signal") _maestro_words "SIGCONT SIGHUP SIGINT SIGKILL SIGQUIT SIGSTOP SIGTERM SIGUSR1 SIGUSR2"; return ;;
        "enable:--timeout") _maestro_words ""; return ;;
        "disable:--timeout") _maestro_words ""; return ;;
        "lock:--reason") _maestro_words ""; return ;;
        "logs:-n"|"logs:--lines") _maestro_words ""; return ;;
        "logs:--since") _maestro_words ""; return ;;
        "logs:--until") _maestro_words ""; return ;;
        "top:--interval") _maestro_words ""; return ;;
        "top:--sort") _maestro_words "cpu memory job"; return ;;
        "events:--since") _maestro_words ""; return ;;
        "events:-n"|"events:--lines") _maestro_words ""; return ;;
        "task:--timeout") _maestro_words ""; return ;;
        "image install:--sha256") _maestro_words ""; return ;;
        "image install:--job") _maestro_words "jobs"; return ;;
        "image install:--image-version") _maestro_words ""; return ;;
        "image install:--type") _maestro_words ""; return ;;
        "image install:--signature") _maestro_words "files"; return ;;
        "image pack:-o"|"image pack:--output") _maestro_words "files"; return ;;
        "image pack:--job") _maestro_words "jobs"; return ;;
        "image pack:--image-version") _maestro_words ""; return ;;
        "image pack:--type") _maestro_words ""; return ;;
        "metrics:--textfile") _maestro_words "files"; return ;;
    esac
    case "$cur:$command" in
        -*:) _maestro_words "--socket --json -h --help --version" ;;
        -*:"apply") _maestro_words "--dry-run --no-wait --timeout --force --socket --json -h --help" ;;
        -*:"check") _maestro_words "--daemon --socket --json -h --help" ;;
        -*:"diff") _maestro_words "--socket --json -h --help" ;;
        -*:"status") _maestro_words "--state --composite --watch --interval -w --wide --socket --json -h --help" ;;
        -*:"start") _maestro_words "--no-wait --timeout --socket --json -h --help" ;;
        -*:"stop") _maestro_words "--no-wait --timeout --socket --json -h --help" ;;
        -*:"restart") _maestro_words "--no-wait --timeout --socket --json -h --help" ;;
        -*:"reload") _maestro_words "--no-wait --timeout --socket --json -h --help" ;;
        -*:"pause") _maestro_words "--no-wait --timeout --socket --json -h --help" ;;
        -*:"resume") _maestro_words "--no-wait --timeout --socket --json -h --help" ;;
        -*:"kill") _maestro_words "-s --signal --socket --json -h --help" ;;
        -*:"enable") _maestro_words "--no-wait --timeout --socket --json -h --help" ;;
        -*:"disable") _maestro_words "--no-wait --timeout --socket --json -h --help" ;;
        -*:"lock") _maestro_words "--reason --socket --json -h --help" ;;
        -*:"unlock") _maestro_words "--socket --json -h --help" ;;
        -*:"logs") _maestro_words "-f --follow -n --lines --since --until --previous --socket --json -h --help" ;;
        -*:"why") _maestro_words "--socket --json -h --help" ;;
        -*:"top") _maestro_words "--interval --sort --socket --json -h --help" ;;
        -*:"exec") _maestro_words "--socket --json -h --help" ;;
        -*:"shell") _maestro_words "--socket --json -h --help" ;;
        -*:"events") _maestro_words "-f --follow --since -n --lines --socket --json -h --help" ;;
        -*:"tasks") _maestro_words "--socket --json -h --help" ;;
        -*:"task") _maestro_words "--wait --timeout --socket --json -h --help" ;;
        -*:"config list") _maestro_words "--socket --json -h --help" ;;
        -*:"config get") _maestro_words "--socket --json -h --help" ;;
        -*:"config set") _maestro_words "--socket --json -h --help" ;;
        -*:"config remove") _maestro_words "--socket --json -h --help" ;;
        -*:"template list") _maestro_words "--socket --json -h --help" ;;
        -*:"template show") _maestro_words "--socket --json -h --help" ;;
        -*:"image list") _maestro_words "--socket --json -h --help" ;;
        -*:"image install") _maestro_words "--sha256 --job --image-version --type --signature --no-wait --socket --json -h --help" ;;
        -*:"image pack") _maestro_words "-o --output --job --image-version --type --socket --json -h --help" ;;
        -*:"image rollback") _maestro_words "--no-wait --socket --json -h --help" ;;
        -*:"image verify") _maestro_words "--repair --no-wait --socket --json -h --help" ;;
        -*:"image remove") _maestro_words "--socket --json -h --help" ;;
        -*:"image gc") _maestro_words "--socket --json -h --help" ;;
        -*:"image pin") _maestro_words "--socket --json -h --help" ;;
        -*:"image unpin") _maestro_words "--socket --json -h --help" ;;
        -*:"doctor") _maestro_words "--socket --json -h --help" ;;
        -*:"metrics") _maestro_words "--textfile --socket --json -h --help" ;;
        -*:"upgrade") _maestro_words "--socket --json -h --help" ;;
        -*:"shutdown") _maestro_words "--keep-jobs --stop-jobs --no-wait --socket --json -h --help" ;;
        -*:"version") _maestro_words "--socket --json -h --help" ;;
        *:) _maestro_words "apply check diff status start stop restart reload pause resume kill enable disable lock unlock logs why top exec shell events tasks task config template image doctor metrics upgrade shutdown version" ;;
        *:config) _maestro_words "list get set remove" ;;
        *:template) _maestro_words "list show" ;;
        *:image) _maestro_words "list install pack rollback verify remove gc pin unpin" ;;
        *:"apply")
            case "$count" in
                0) _maestro_words "files" ;;
            esac
            ;;
        *:"check")
            case "$count" in
                0) _maestro_words "files" ;;
            esac
            ;;
        *:"diff")
            case "$count" in
                0) _maestro_words "files" ;;
            esac
            ;;
        *:"status")
            case "$count" in
                *) _maestro_words "jobs" ;;
            esac
            ;;
        *:"start")
            case "$count" in
                *) _maestro_words "jobs" ;;
            esac
            ;;
        *:"stop")
            case "$count" in
                *) _maestro_words "jobs" ;;
            esac
            ;;
        *:"restart")
            case "$count" in
                *) _maestro_words "jobs" ;;
            esac
            ;;
        *:"reload")
            case "$count" in
                *) _maestro_words "jobs" ;;
            esac
            ;;
        *:"pause")
            case "$count" in
                *) _maestro_words "jobs" ;;
            esac
            ;;
        *:"resume")
            case "$count" in
                *) _maestro_words "jobs" ;;
            esac
            ;;
        *:"kill")
            case "$count" in
                *) _maestro_words "jobs" ;;
            esac
            ;;
        *:"enable")
            case "$count" in
                *) _maestro_words "jobs" ;;
            esac
            ;;
        *:"disable")
            case "$count" in
                *) _maestro_words "jobs" ;;
            esac
            ;;
        *:"lock")
            case "$count" in
                0) _maestro_words "jobs" ;;
            esac
            ;;
        *:"unlock")
            case "$count" in
                0) _maestro_words "jobs" ;;
            esac
            ;;
        *:"logs")
            case "$count" in
                *) _maestro_words "jobs" ;;
            esac
            ;;
        *:"why")
            case "$count" in
                0) _maestro_words "jobs" ;;
            esac
            ;;
        *:"top")
            case "$count" in
                *) _maestro_words "jobs" ;;
            esac
            ;;
        *:"exec")
            case "$count" in
                0) _maestro_words "jobs" ;;
                *) _maestro_words "commands" ;;
            esac
            ;;
        *:"shell")
            case "$count" in
                0) _maestro_words "jobs" ;;
            esac
            ;;
        *:"task")
            case "$count" in
                0) _maestro_words "tasks" ;;
            esac
            ;;
        *:"config list")
            case "$count" in
                0) _maestro_words "jobs" ;;
            esac
            ;;
        *:"config get")
            case "$count" in
                0) _maestro_words "jobs" ;;
            esac
            ;;
        *:"config set")
            case "$count" in
                0) _maestro_words "jobs" ;;
                2) _maestro_words "files" ;;
            esac
            ;;
        *:"config remove")
            case "$count" in
                0) _maestro_words "jobs" ;;
            esac
            ;;
        *:"template show")
            case "$count" in
                0) _maestro_words "templates" ;;
            esac
            ;;
        *:"image install")
            case "$count" in
                0) _maestro_words "files" ;;
            esac
            ;;
        *:"image pack")
            case "$count" in
                0) _maestro_words "dirs" ;;
            esac
            ;;
        *:"image rollback")
            case "$count" in
                0) _maestro_words "jobs" ;;
            esac
            ;;
        *:"image verify")
            case "$count" in
                0) _maestro_words "jobs" ;;
            esac
            ;;
        *:"image remove")
            case "$count" in
                0) _maestro_words "images" ;;
            esac
            ;;
        *:"image pin")
            case "$count" in
                0) _maestro_words "images" ;;
            esac
            ;;
        *:"image unpin")
            case "$count" in
                0) _maestro_words "images" ;;
            esac
            ;;
    esac
}

complete -F _maestro maestro
