/* Runs the example that connects. It ends when nothing is left to wait for: it reads nothing, and so stays until the connection stands. */
#include "connect.c"

int main(void)
{
	return main_loop();
}
