package top

import (
	"strings"

	tea "charm.land/bubbletea/v2"
)

// key does what a key says.
func (m *model) key(k tea.KeyPressMsg) tea.Cmd {
	name := k.String()
	switch {
	case name == "ctrl+c":
		return tea.Quit
	case name == "ctrl+z":
		return tea.Suspend
	case m.help:
		m.help = false
		return nil
	case m.typing:
		return m.typed(k, name)
	}
	if cmd, ok := m.moves(name); ok {
		return cmd
	}
	switch name {
	case "q":
		return tea.Quit
	case "?", "f1":
		m.help = true
	case "/":
		m.typing = m.now().kind != findingsKind
	case "enter":
		return m.open()
	case "esc", "backspace":
		if m.now().filter != "" {
			m.filter("")
			return m.poll()
		}
		return m.back()
	case "left", "h", "<":
		return m.sortBy(-1)
	case "right", "l", ">":
		return m.sortBy(1)
	case "r":
		if s := m.now(); s.sort != "" {
			s.down = !s.down
			return m.reordered()
		}
	case "p", "space":
		return m.pause()
	case "1", "2", "3", "4":
		return m.tab(tabs[name[0]-'1'].kind)
	case "tab":
		return m.turn(1)
	case "shift+tab":
		return m.turn(-1)
	}
	return nil
}

// moves are the keys that select another row.
func (m *model) moves(name string) (tea.Cmd, bool) {
	switch name {
	case "up", "k":
		m.move(-1)
	case "down", "j":
		m.move(1)
	case "pgup", "ctrl+b":
		m.move(-m.room())
	case "pgdown", "ctrl+f":
		m.move(m.room())
	case "home", "g":
		m.move(-m.now().at)
	case "end", "G":
		m.move(len(m.rows()))
	default:
		return nil, false
	}
	return nil, true
}

// turn goes to the next or the previous tab.
func (m *model) turn(step int) tea.Cmd {
	at := 0
	for i, t := range tabs {
		if t.kind == m.stack[0].kind {
			at = i
		}
	}
	if len(m.stack) > 1 && step < 0 { // back to the list one came from
		return m.show(m.stack[0])
	}
	return m.tab(tabs[(at+step+len(tabs))%len(tabs)].kind)
}

// typed changes the filter.
func (m *model) typed(k tea.KeyPressMsg, name string) tea.Cmd {
	was := m.now().filter
	switch name {
	case "enter":
		m.typing = false
		return nil
	case "esc":
		m.typing = false
		m.filter("")
	case "up", "down", "pgup", "pgdown":
		cmd, _ := m.moves(name)
		return cmd
	case "backspace", "ctrl+h":
		m.filter(was[:max(len(was)-1, 0)])
	case "ctrl+u", "ctrl+w":
		m.filter("")
	default:
		if k.Text != "" {
			m.filter(was + strings.TrimSpace(k.Text))
		}
	}
	if m.now().filter == was {
		return nil
	}
	return m.poll()
}
