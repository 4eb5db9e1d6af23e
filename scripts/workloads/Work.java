import java.io.*;
import java.net.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;

/** What the jvm workload runs; the argument is what `uname -r` says. */
public class Work {
	public static void main(String[] args) throws Exception {
		check("threads", sums() == 4L * 1_000_000 * 999_999 / 2);
		check("garbage", garbage() > 0);
		check("mapped file", mapped().equals("mapped"));
		check("sockets", echo("hello").equals("hello"));
		check("child", new String(new ProcessBuilder("uname", "-r").start().getInputStream().readAllBytes()).trim().equals(args[0]));
		System.out.println("jvm: threads, garbage, mapped file, sockets, child: passed");
	}

	static void check(String what, boolean ok) {
		if (!ok) {
			System.out.println("jvm: " + what + " failed");
			System.exit(1);
		}
	}

	static long sums() throws Exception {
		ExecutorService pool = Executors.newFixedThreadPool(4);
		List<Future<Long>> parts = new ArrayList<>();
		for (int i = 0; i < 4; i++) {
			parts.add(pool.submit(() -> {
				long sum = 0;
				for (int j = 0; j < 1_000_000; j++) {
					sum += j;
				}
				return sum;
			}));
		}
		long all = 0;
		for (Future<Long> p : parts) {
			all += p.get();
		}
		pool.shutdown();
		return all;
	}

	/** Allocates more than the heap holds and returns how much of it was kept. */
	static long garbage() {
		Deque<byte[]> kept = new ArrayDeque<>();
		for (int i = 0; i < 400; i++) {
			kept.add(new byte[1 << 20]);
			if (kept.size() > 32) {
				kept.remove();
			}
		}
		return kept.size();
	}

	static String mapped() throws IOException {
		Path file = Files.createTempFile("work", null);
		try (FileChannel c = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
			c.map(FileChannel.MapMode.READ_WRITE, 0, 6).put("mapped".getBytes());
		}
		return Files.readString(file);
	}

	static String echo(String text) throws Exception {
		try (ServerSocket server = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
			Thread t = new Thread(() -> {
				try (Socket s = server.accept()) {
					s.getInputStream().transferTo(s.getOutputStream());
				} catch (IOException e) {
					throw new UncheckedIOException(e);
				}
			});
			t.start();
			try (Socket s = new Socket(server.getInetAddress(), server.getLocalPort())) {
				s.getOutputStream().write(text.getBytes());
				s.shutdownOutput();
				return new String(s.getInputStream().readAllBytes());
			}
		}
	}
}
